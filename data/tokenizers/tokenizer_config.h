// What stands beside a vocabulary: tokenizer_config.json, and special_tokens_map.json and added_tokens.json of older
// folders. Followed as transformers' from_pretrained does (tokenization_utils_base.py). Private to data/tokenizers/.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <stet/data/tokenizers/pipeline.h>
#include <stet/tensor/json_file.h>

namespace stet::data::tokenizers {

class TokenizerConfig {
 public:
  /// Nothing stands beside.
  TokenizerConfig() = default;
  /// Reads the files in the folder of `vocabulary`; each may be missing. `assumed` is the class where none is named.
  explicit TokenizerConfig(const std::filesystem::path& vocabulary, std::string_view assumed = {});
  TokenizerConfig(const TokenizerConfig&) = delete;
  TokenizerConfig& operator=(const TokenizerConfig&) = delete;

  /// tokenizer_class, without "Fast" at its end.
  std::string_view class_name() const;
  /// Refuses a class of another name: its rules are not in these files.
  void expect_class(std::initializer_list<std::string_view> classes) const;

  /// A setting of tokenizer_config.json; null is the same as missing.
  std::optional<JsonFile::Value> given(std::string_view key) const;
  bool flag(std::string_view key, bool otherwise) const;
  /// Is the setting there, and be it null?
  bool has(std::string_view key) const { return config_ && config_->root().find(key); }

  /// The token that "cls_token" or its like names; empty where there is none.
  std::string token(std::string_view key) const;
  /// The ids of bos_token or eos_token where the setting asks for it.
  std::vector<Id> mark(std::string_view setting, std::string_view key, const Vocabulary& vocabulary) const;

  /// Adds the tokens that are listed with their ids, then those that are named and are not added yet, which get the
  /// next ids where the vocabulary has them not. What tokenizer_config.json lists replaces a token that is added
  /// already; an id that is neither the vocabulary's nor the next is refused.
  void add_tokens(Parts& parts) const;

 private:
  class Adder;
  struct Named;
  std::optional<JsonFile::Value> find(std::string_view key) const;  // in the map, else in the configuration
  std::vector<Named> named() const;

  std::string name_;  // of the vocabulary's file
  std::string_view assumed_;
  std::optional<JsonFile> config_, map_, added_;
};

}  // namespace stet::data::tokenizers
