// From a piece of text to ids: byte-level BPE and WordPiece. Private to data/tokenizers/.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include <stet/data/tokenizers/vocabulary.h>

namespace stet::data::tokenizers {

class Model {
 public:
  virtual ~Model() = default;
  virtual void append_ids(std::string_view piece, std::vector<Id>& ids) const = 0;
};

/// What two neighbouring tokens merge into, and how early; in an open hash table, for it is asked at every pair.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank, merged;
  };
  explicit MergeTable(std::size_t count);
  /// False if the pair is there already.
  bool insert(Id left, Id right, Merge merge);
  const Merge* find(Id left, Id right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t slot = slot_of(key); keys_[slot] != kFree; slot = (slot + 1) & mask_)
      if (keys_[slot] == key) return &merges_[slot];
    return nullptr;
  }

 private:
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};
  static std::uint64_t key_of(Id left, Id right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
  }
  std::size_t slot_of(std::uint64_t key) const { return (key * 0x9e3779b97f4a7c15u) >> shift_; }

  int shift_ = 0;
  std::size_t mask_ = 0;
  std::vector<std::uint64_t> keys_;
  std::vector<Merge> merges_;
};

/// Sennrich et al. 2016 over bytes (Radford et al. 2019): the neighbours that were merged earliest in training are
/// merged first, the leftmost of equals, until none are left.
class ByteBpe final : public Model {
 public:
  struct Rule {
    Id left, right, merged;
  };
  struct Options {
    bool ignore_merges = false;  // a piece that is a token is that token, whatever the merges say (Llama 3)
    Id unknown = -1;             // for a byte without a token; -1: an Error
    bool fuse_unknown = false;   // a run of them is one
  };
  /// The rules in the order of training, each pair once; bytes are spelled as in byte_level.h.
  ByteBpe(const Vocabulary& vocabulary, std::vector<Rule> rules, Options options);
  void append_ids(std::string_view piece, std::vector<Id>& ids) const override;

  const std::vector<Rule>& rules() const { return rules_; }
  const Options& options() const { return options_; }

 private:
  std::vector<Rule> rules_;
  Options options_;
  MergeTable merges_;
  std::array<Id, 256> byte_ids_;
  TextMap<Id> whole_;  // with ignore_merges: the tokens' bytes
};

/// Collects a byte-level BPE's rules from the files' spelling, and refuses what cannot be: a name that is no token.
class MergeRules {
 public:
  explicit MergeRules(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}
  /// Adds the next rule, or says what is wrong with it.
  std::optional<std::string> add(std::string_view left, std::string_view right);
  std::vector<ByteBpe::Rule> take() { return std::move(rules_); }

 private:
  const Vocabulary& vocabulary_;
  std::vector<ByteBpe::Rule> rules_;
  std::unordered_set<std::uint64_t> seen_;
};

/// The longest token that the rest of a word starts with, again and again (Wu et al. 2016, as in BERT).
class WordPiece final : public Model {
 public:
  struct Options {
    std::string prefix = "##";         // of tokens inside a word
    Id unknown = 0;                    // for a whole word of which any part has no token
    std::size_t max_characters = 100;  // a longer word is unknown
  };
  WordPiece(const Vocabulary& vocabulary, Options options);
  void append_ids(std::string_view piece, std::vector<Id>& ids) const override;

 private:
  Options options_;
  TextMap<Id> starts_, insides_;  // insides without their prefix
  std::size_t longest_ = 0;       // bytes
};

}  // namespace stet::data::tokenizers
