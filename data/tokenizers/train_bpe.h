// Training a byte-level BPE of one's own (Sennrich et al. 2016; Radford et al. 2019).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <stet/data/tokenizers/tokenizer.h>

namespace stet::data {

struct TrainBpeOptions {
  /// How text is cut into the words that merges never cross: GPT-2's expression, or Llama 3's, which cuts numbers by
  /// threes and keeps line ends together.
  enum class Words { gpt2, llama3 } words = Words::gpt2;
  /// They get the first ids, in this order. Each is non-empty UTF-8, and none twice.
  std::vector<std::string> special_tokens = {"<|endoftext|>"};
  /// A pair that is seen less often is not merged. At least 1.
  std::int64_t min_frequency = 2;
  /// Called now and then and at the end with the number of tokens so far and the number asked for.
  std::function<void(std::int64_t done, std::int64_t total)> progress = nullptr;
};

/// Special tokens, then the 256 bytes, then the most frequent pair of neighbours, again and again, until there are
/// `vocab_size` tokens or no pair is frequent enough. The same texts give the same tokenizer, on any machine: of
/// equally frequent pairs the one with the smaller ids is first. Pair counts are kept up to date instead of being
/// counted anew: time grows with the text's distinct words, not with their number times the merges.
/// Special tokens that stand in the texts are not treated as such, and no merge makes one: a pair that would be spelled
/// like it stays two tokens (Hugging Face's trainer, equal otherwise, merges it into the special one). Throws an Error
/// for a vocabulary smaller than its special tokens and bytes, or of 2^24 or more.
std::unique_ptr<Tokenizer> train_bpe(std::span<const std::string> texts, std::int64_t vocab_size,
                                     const TrainBpeOptions& options = {});

}  // namespace stet::data
