// One function for each kind of file. Private to data/tokenizers/.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

#include <stet/data/tokenizers/tokenizer.h>
#include <stet/tensor/json_file.h>

namespace stet::data::tokenizers {

inline constexpr std::string_view kLoad = "load_tokenizer";  // the operation that errors name

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::filesystem::path& file);
/// GPT-2's pair, with added_tokens.json beside them where there is one.
std::unique_ptr<Tokenizer> load_gpt2_files(const std::filesystem::path& vocab, const std::filesystem::path& merges);
/// BERT's vocab.txt, with tokenizer_config.json beside it where there is one.
std::unique_ptr<Tokenizer> load_bert_vocab(const std::filesystem::path& file);
std::unique_ptr<Tokenizer> load_llama2c(const std::filesystem::path& file);

/// Which of its own marks a SentencePiece model sets around a text, where it has them.
struct Marks {
  bool begin = true, end = false;
};
std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file, Marks marks);
/// The marks that a tokenizer.json made from a SentencePiece model asks for. `model` sets both. What would change ids
/// and the model does not do is refused.
Marks read_marks(const JsonFile& converted, const Tokenizer& model);

}  // namespace stet::data::tokenizers
