// The trainer: distinct words with their counts; for each pair of neighbours its count and the words it stands in;
// a queue of pairs, whose stale entries are corrected when they come up.
#include <stet/data/tokenizers/train_bpe.h>

#include <algorithm>
#include <optional>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include <stet/data/tokenizers/byte_level.h>
#include <stet/data/tokenizers/pipeline.h>
#include <stet/data/tokenizers/unicode.h>
#include <stet/tensor/error.h>

namespace stet::data {

using namespace tokenizers;

namespace {

constexpr std::string_view kOp = "train_bpe";

struct Word {
  std::vector<std::uint32_t> ids;
  std::int64_t count;
};

std::uint64_t pair_of(std::uint32_t left, std::uint32_t right) { return std::uint64_t{left} << 32 | right; }

struct PairHash {
  std::size_t operator()(std::uint64_t pair) const { return (pair * 0x9e3779b97f4a7c15u) >> 17; }
};

struct Candidate {
  std::int64_t count;
  std::uint64_t pair;
  /// Later in the queue: less frequent, or as frequent with larger ids.
  bool operator<(const Candidate& other) const {
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class Trainer {
 public:
  Trainer(Vocabulary& vocabulary, const TrainBpeOptions& options) : vocabulary_(vocabulary), options_(options) {}

  void count(std::span<const std::string> texts);
  std::vector<ByteBpe::Rule> merge(std::int64_t vocab_size);

 private:
  struct Pair {
    std::int64_t count = 0;
    std::vector<std::uint32_t> words;  // in which it stands or stood
    bool has_rule = false;
  };

  void change(std::uint64_t pair, std::int64_t by, std::uint32_t word);
  void merge_in(std::uint32_t word, std::uint32_t left, std::uint32_t right, std::uint32_t merged);
  std::optional<std::uint32_t> token_for(std::uint32_t left, std::uint32_t right);

  Vocabulary& vocabulary_;
  const TrainBpeOptions& options_;
  std::vector<Word> words_;
  std::unordered_map<std::uint64_t, Pair, PairHash> pairs_;
  std::vector<std::string> spelled_;      // by id
  std::vector<std::uint64_t> increased_;  // pairs that the current merge made more frequent
};

void Trainer::count(std::span<const std::string> texts) {
  TextMap<std::size_t> known;
  std::uint32_t byte_ids[256];
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    byte_ids[byte] = static_cast<std::uint32_t>(*vocabulary_.id_of(to_byte_level({&text, 1})));
  }
  const Split split = options_.words == TrainBpeOptions::Words::gpt2 ? Split::gpt2 : Split::llama3;
  for (const std::string& text : texts) {
    for_each_piece(split, text, [&](std::string_view piece) {
      if (const auto word = known.find(piece); word != known.end()) {
        ++words_[word->second].count;
        return;
      }
      known.emplace(piece, words_.size());
      Word word{{}, 1};
      for (const char c : piece) word.ids.push_back(byte_ids[static_cast<unsigned char>(c)]);
      words_.push_back(std::move(word));
    });
  }
  check(words_.size() < (std::size_t{1} << 32), kOp, "found ", words_.size(), " distinct words, expected below 2^32");
  for (std::uint32_t w = 0; w < words_.size(); ++w)
    for (std::size_t i = 1; i < words_[w].ids.size(); ++i)
      change(pair_of(words_[w].ids[i - 1], words_[w].ids[i]), words_[w].count, w);
  increased_.clear();
  for (Id id = 0; id < vocabulary_.size(); ++id) spelled_.push_back(vocabulary_.token(id));
}

void Trainer::change(std::uint64_t pair, std::int64_t by, std::uint32_t word) {
  Pair& entry = pairs_[pair];
  entry.count += by;
  if (by < 0) return;
  if (entry.words.empty() || entry.words.back() != word) entry.words.push_back(word);
  increased_.push_back(pair);
}

/// Replaces the pair in one word, from the left, and keeps the counts of the neighbours' pairs.
void Trainer::merge_in(std::uint32_t word, std::uint32_t left, std::uint32_t right, std::uint32_t merged) {
  auto& ids = words_[word].ids;
  const std::int64_t count = words_[word].count;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i + 1 == ids.size() || ids[i] != left || ids[i + 1] != right) {
      ids[kept++] = ids[i];
      continue;
    }
    if (kept > 0) {
      change(pair_of(ids[kept - 1], left), -count, word);
      change(pair_of(ids[kept - 1], merged), count, word);
    }
    if (i + 2 < ids.size()) {
      change(pair_of(right, ids[i + 2]), -count, word);
      change(pair_of(merged, ids[i + 2]), count, word);
    }
    ids[kept++] = merged;
    ++i;
  }
  ids.resize(kept);
}

/// The id of the merged token: a new one, unless another pair has made the same bytes before. None where the token
/// would be spelled as a special one, which no text may become.
std::optional<std::uint32_t> Trainer::token_for(std::uint32_t left, std::uint32_t right) {
  std::string token = spelled_[left] + spelled_[right];
  if (const auto id = vocabulary_.id_of(token)) {
    if (*id < std::ssize(options_.special_tokens)) return {};
    return static_cast<std::uint32_t>(*id);
  }
  const auto id = static_cast<std::uint32_t>(spelled_.size());
  const auto problem = vocabulary_.add(token, id);
  if (problem) fail<BugError>(kOp, *problem);
  spelled_.push_back(std::move(token));
  return id;
}

std::vector<ByteBpe::Rule> Trainer::merge(std::int64_t vocab_size) {
  std::priority_queue<Candidate> queue;
  for (const auto& [pair, entry] : pairs_) queue.push({entry.count, pair});
  std::vector<ByteBpe::Rule> rules;
  const auto done = [&] { return static_cast<std::int64_t>(spelled_.size()); };
  while (done() < vocab_size && !queue.empty()) {
    Candidate top = queue.top();
    queue.pop();
    Pair& entry = pairs_[top.pair];
    if (top.count != entry.count) {
      if (entry.count > 0) queue.push({entry.count, top.pair});
      continue;
    }
    if (top.count < options_.min_frequency) break;
    const auto left = static_cast<std::uint32_t>(top.pair >> 32), right = static_cast<std::uint32_t>(top.pair);
    const auto merged = token_for(left, right);
    if (!merged) continue;
    // A pair can come back, where a token of its own bytes was made by another pair.
    if (!entry.has_rule) rules.push_back({left, right, *merged});
    entry.has_rule = true;
    const std::vector<std::uint32_t> words = std::move(entry.words);
    entry.words.clear();
    for (const std::uint32_t word : words) merge_in(word, left, right, *merged);
    pairs_[top.pair].count = 0;
    std::sort(increased_.begin(), increased_.end());
    increased_.erase(std::unique(increased_.begin(), increased_.end()), increased_.end());
    for (const std::uint64_t pair : increased_)
      if (const auto& grown = pairs_[pair]; grown.count > 0) queue.push({grown.count, pair});
    increased_.clear();
    if (options_.progress && (rules.size() % 256 == 0)) options_.progress(done(), vocab_size);
  }
  if (options_.progress) options_.progress(done(), vocab_size);
  return rules;
}

}  // namespace

std::unique_ptr<Tokenizer> train_bpe(std::span<const std::string> texts, std::int64_t vocab_size,
                                     const TrainBpeOptions& options) {
  const auto least = static_cast<std::int64_t>(options.special_tokens.size()) + 256;
  check(vocab_size >= least && vocab_size <= kMaxId, kOp, "found a vocabulary of ", vocab_size, ", expected ", least,
        " (special tokens and bytes) to ", kMaxId);
  check(options.min_frequency >= 1, kOp, "found min_frequency ", options.min_frequency, ", expected at least 1");
  Parts parts;
  Id next = 0;
  const auto add = [&](const std::string& token) {
    const auto problem = parts.vocabulary.add(token, next);
    check(!problem, kOp, "special token ", next, ": ", problem.value_or(""));
    ++next;
  };
  for (const std::string& token : options.special_tokens) {
    check(!token.empty() && is_utf8(token), kOp, "special token ", next, ": expected non-empty UTF-8");
    parts.added.push_back({.content = token, .id = next, .special = true, .in_model = true});
    add(token);
  }
  // The order of their spelling, which is GPT-2's: printable bytes first.
  std::vector<std::string> bytes;
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    bytes.push_back(to_byte_level({&text, 1}));
  }
  std::sort(bytes.begin(), bytes.end());
  std::for_each(bytes.begin(), bytes.end(), add);
  if (const auto problem = parts.vocabulary.seal()) fail<BugError>(kOp, *problem);

  Trainer trainer(parts.vocabulary, options);
  trainer.count(texts);
  auto rules = trainer.merge(vocab_size);
  if (const auto problem = parts.vocabulary.seal()) fail<BugError>(kOp, *problem);
  parts.cuts.push_back({.split = options.words == TrainBpeOptions::Words::gpt2 ? Split::gpt2 : Split::llama3});
  parts.model = std::make_unique<ByteBpe>(parts.vocabulary, std::move(rules), ByteBpe::Options{});
  return std::make_unique<Pipeline>(std::move(parts));
}

}  // namespace stet::data
