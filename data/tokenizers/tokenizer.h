// Text to token ids and back. A tokenizer is read from the files that a released model comes with, or trained
// (train_bpe.h). Text is bytes; where a rule speaks of characters, the bytes are read as UTF-8, and a byte that
// is not part of a character stands for itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stet::data {

struct EncodeOptions {
  /// Adds what the model expects around a text: [CLS] and [SEP], or a beginning-of-sequence token.
  bool add_special_tokens = true;
  /// Special tokens that are written out in the text become their ids. Turn it off for text from strangers. llama2.c's
  /// and SentencePiece's know none in a text: they spell them out.
  bool parse_special_tokens = true;
};

struct DecodeOptions {
  bool skip_special_tokens = false;
};

struct SpecialToken {
  std::string content;
  std::int64_t id;
};

/// Immutable once made; every function may be called from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Token ids, each in [0, vocab_size()). Throws an Error where the vocabulary has no token for a byte and no
  /// unknown token either.
  virtual std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;
  /// The text of the ids, as bytes: a token may hold part of a character. Throws an Error naming the position
  /// of an id that the vocabulary has not. Byte-level BPE without a normalizer gives back every text exactly.
  virtual std::string decode(std::span<const std::int64_t> ids, const DecodeOptions& options = {}) const = 0;

  /// One more than the largest id. A model's embedding may have more rows than that.
  virtual std::int64_t vocab_size() const = 0;
  /// The token as the vocabulary file writes it ("Ġthe", "##ing"), and its id.
  virtual std::optional<std::int64_t> id_of(std::string_view token) const = 0;
  /// Throws an Error for an id that no token has.
  virtual std::string token_of(std::int64_t id) const = 0;
  /// In the order of their ids.
  virtual std::vector<SpecialToken> special_tokens() const = 0;

  /// Writes a Hugging Face tokenizer.json, which load_tokenizer and other libraries read. Byte-level BPE only;
  /// throws an Error for other kinds and where the file cannot be written.
  virtual void save(const std::filesystem::path& file) const;
};

/// Reads a tokenizer from a folder or a file:
///   tokenizer.json               Hugging Face: byte-level BPE (GPT-2, Llama 3, Qwen 2, SmolLM2) and WordPiece (BERT)
///   vocab.json + merges.txt      GPT-2's files, also under their first names encoder.json + vocab.bpe
///   vocab.txt                    BERT's WordPiece; lower-cases unless tokenizer_config.json says otherwise
///   *.model                      SentencePiece, in a build that found the library; <s> goes before a text unless
///                                tokenizer_config.json beside it, or the tokenizer.json made from it, say otherwise
///   tok*.bin                     llama2.c
/// In a folder the first that is present is taken, in this order. Beside the first three tokenizer_config.json,
/// special_tokens_map.json and added_tokens.json are followed as transformers does: tokens that they list or name,
/// add_bos_token and add_eos_token (vocab.json alone), add_prefix_space, do_lower_case, strip_accents and
/// tokenize_chinese_chars; beside a tokenizer.json those of them that are written out, for classes that do not take it
/// as it is. Anything in a file that would change ids and is
/// not supported is an Error naming file and field; `truncation` and `padding` are the caller's business and do
/// nothing here. Ids, merges and types are checked; a damaged file is an Error naming file and key, line or byte.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);
/// Whether a file of this name belongs to a tokenizer, those that only other libraries read (chat templates, the
/// folder of further ones) included.
bool is_tokenizer_file(std::string_view name);
/// Copies a folder's tokenizer files as they are, those that only other libraries read included, into another one, as
/// beside a model that was fine-tuned. Files of the same names are replaced. Into the folder itself nothing
/// is copied.
void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace stet::data
