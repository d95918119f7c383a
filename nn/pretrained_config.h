// config.json as configurations. Private to nn/.
#pragma once

#include <string_view>

#include <stet/nn/pretrained.h>

namespace stet::nn::pretrained {

inline constexpr std::string_view kLoad = "load_pretrained", kSave = "save_pretrained";

struct Config {
  std::string model_type;
  std::variant<Gpt2Config, LlamaConfig, BertConfig> model;
  std::vector<std::int64_t> end_tokens;
  std::optional<BertClassifierOptions> classifier = {};  ///< of a BertForSequenceClassification
};

/// Every field is read, checked, or on the list of those that change no result; anything else is an Error naming
/// file, key and byte. Where a generation_config.json beside it has end tokens, they are taken instead.
Config read_config(const std::filesystem::path& file);

/// The text of a config.json that says the same.
std::string config_text(const Gpt2Config& config, const std::vector<std::int64_t>& end_tokens);
std::string config_text(const LlamaConfig& config, const std::vector<std::int64_t>& end_tokens);
std::string config_text(const BertConfig& config);
std::string config_text(const BertConfig& config, const BertClassifierOptions& options);
/// A generation_config.json with other end tokens, which readers take before those of config.json; none where there is
/// no such file.
std::optional<std::string> generation_text(const std::filesystem::path& file,
                                           const std::vector<std::int64_t>& end_tokens);

}  // namespace stet::nn::pretrained
