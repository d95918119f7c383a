// One function for each kind of file. Private to data/tokenizers/.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

#include <stet/data/tokenizers/tokenizer.h>

namespace stet::data::tokenizers {

inline constexpr std::string_view kLoad = "load_tokenizer";  // the operation that errors name

std::unique_ptr<Tokenizer> load_tokenizer_json(const std::filesystem::path& file);
/// GPT-2's pair, with added_tokens.json beside them where there is one.
std::unique_ptr<Tokenizer> load_gpt2_files(const std::filesystem::path& vocab, const std::filesystem::path& merges);
/// BERT's vocab.txt, with tokenizer_config.json beside it where there is one.
std::unique_ptr<Tokenizer> load_bert_vocab(const std::filesystem::path& file);
std::unique_ptr<Tokenizer> load_llama2c(const std::filesystem::path& file);
std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& file);

}  // namespace stet::data::tokenizers
