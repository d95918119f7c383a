// The trained classifier as a folder, and back.
#include <charconv>
#include <fstream>

#include "training.h"

using namespace stet;

std::pair<nn::BertConfig, nn::State> read_encoder(const std::filesystem::path& folder) {
  const nn::Pretrained found = nn::load_pretrained(folder);
  const nn::Bert* bert = nullptr;
  if (const auto* plain = std::get_if<std::unique_ptr<nn::Bert>>(&found.model)) bert = plain->get();
  if (const auto* classifier = std::get_if<std::unique_ptr<nn::BertClassifier>>(&found.model))
    bert = &(*classifier)->bert;
  check(bert != nullptr, "finetune_minilm", folder.string(), ": found a ", found.model_type, " model, expected bert");
  nn::BertConfig config = bert->config();
  config.pooler = false;
  nn::State state = bert->state();
  std::erase_if(state, [](const auto& item) { return item.first.starts_with("pooler."); });
  return {config, state};
}

void save(const Classifier& model, const continual::Adapters& adapters, const std::vector<std::string>& labels,
          std::int64_t length, const std::filesystem::path& from, const std::filesystem::path& folder) {
  nn::Bert encoder(model.bert.config());
  nn::State state;
  const std::string prefix = "bert.";
  for (const auto& [name, value] : adapters.active().empty() ? adapters.base_state() : adapters.merged_state())
    if (name.starts_with(prefix)) state[name.substr(prefix.size())] = value;
  encoder.load(state);
  std::string names;
  for (const std::string& label : labels) names += label + '\n';
  nn::save_pretrained(encoder, folder);
  data::copy_tokenizer(from, folder);
  nn::save_safetensors(folder / "head.safetensors", model.head.state());
  continual::write_text_file(folder / "labels.txt", names);
  continual::write_text_file(folder / kLengthFile, std::to_string(length) + '\n');
}

namespace {

/// 0 where there is no such file: folders were once written without.
std::int64_t read_length(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return 0;
  std::ifstream in(file);
  std::string text;
  std::getline(in, text);
  std::int64_t length = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  check(error == std::errc() && end == text.data() + text.size() && length >= 3, "load", file.string(), ": found \"",
        text, "\", expected how many tokens of a text are read, 3 at least");
  return length;
}

}  // namespace

Loaded load(const std::filesystem::path& folder) {
  const std::filesystem::path head = folder / "head.safetensors", names = folder / "labels.txt";
  Loaded out;
  std::ifstream in(names);
  check(in.good(), "load", names.string(), ": cannot be opened; a folder that --save wrote has one");
  for (std::string line; std::getline(in, line);) out.labels.push_back(line);
  check(!out.labels.empty(), "load", names.string(), ": no labels");
  out.length = read_length(folder / kLengthFile);
  const auto [config, state] = read_encoder(folder);
  out.model = std::make_unique<Classifier>(config, std::ssize(out.labels));
  out.model->bert.load(state);
  nn::load(out.model->head, head);
  return out;
}
