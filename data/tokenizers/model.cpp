// ByteBpe and WordPiece over hash tables of their vocabularies.
#include <stet/data/tokenizers/model.h>

#include <algorithm>
#include <bit>

#include <stet/data/tokenizers/byte_level.h>
#include <stet/data/tokenizers/merge_symbols.h>
#include <stet/data/tokenizers/unicode.h>
#include <stet/tensor/error.h>

namespace stet::data::tokenizers {

MergeTable::MergeTable(std::size_t count) {
  const std::size_t slots = std::bit_ceil(2 * count + 2);
  shift_ = 64 - std::countr_zero(slots);
  mask_ = slots - 1;
  keys_.assign(slots, kFree);
  merges_.resize(slots);
}

bool MergeTable::insert(Id left, Id right, Merge merge) {
  const std::uint64_t key = key_of(left, right);
  std::size_t slot = slot_of(key);
  for (; keys_[slot] != kFree; slot = (slot + 1) & mask_)
    if (keys_[slot] == key) return false;
  keys_[slot] = key;
  merges_[slot] = merge;
  return true;
}

ByteBpe::ByteBpe(const Vocabulary& vocabulary, std::vector<Rule> rules, Options options)
    : rules_(std::move(rules)), options_(options), merges_(rules_.size()) {
  for (std::size_t rank = 0; rank < rules_.size(); ++rank) {
    const Rule& rule = rules_[rank];
    merges_.insert(rule.left, rule.right, {static_cast<std::uint32_t>(rank), static_cast<std::uint32_t>(rule.merged)});
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    byte_ids_[static_cast<std::size_t>(byte)] = vocabulary.id_of(to_byte_level({&text, 1})).value_or(-1);
  }
  if (!options_.ignore_merges) return;
  for (Id id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.has(id)) continue;
    if (auto bytes = from_byte_level(vocabulary.token(id))) whole_.emplace(std::move(*bytes), id);
  }
}

void ByteBpe::append_ids(std::string_view piece, std::vector<Id>& ids) const {
  if (options_.ignore_merges) {
    if (const auto whole = whole_.find(piece); whole != whole_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  const std::size_t from = ids.size();
  bool after_unknown = false;
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    const Id id = byte_ids_[byte];
    check(id >= 0 || options_.unknown >= 0, "encode", "found byte ", int{byte}, ": the vocabulary has neither a token ",
          "for it nor an unknown token");
    if (id >= 0) ids.push_back(id);
    else if (!after_unknown || !options_.fuse_unknown) ids.push_back(options_.unknown);
    after_unknown = id < 0;
  }
  merge_symbols(ids, from, [this](Id left, Id right) { return merges_.find(left, right); });
}

std::optional<std::string> MergeRules::add(std::string_view left, std::string_view right) {
  const auto named = [](std::string_view token) { return "\"" + std::string(token.substr(0, 80)) + "\""; };
  const auto a = vocabulary_.id_of(left), b = vocabulary_.id_of(right);
  if (!a || !b) return "found " + named(a ? right : left) + ", expected a token of the vocabulary";
  std::string both(left);
  both += right;
  const auto merged = vocabulary_.id_of(both);
  if (!merged) return "found a merge into " + named(both) + ", expected a token of the vocabulary";
  if (!seen_.insert(static_cast<std::uint64_t>(*a) << 32 | static_cast<std::uint64_t>(*b)).second)
    return "found " + named(left) + " and " + named(right) + " a second time, expected each merge once";
  rules_.push_back({*a, *b, *merged});
  return {};
}

WordPiece::WordPiece(const Vocabulary& vocabulary, Options options) : options_(std::move(options)) {
  for (Id id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.has(id)) continue;
    const std::string_view token = vocabulary.token(id);
    starts_.emplace(token, id);
    if (token.starts_with(options_.prefix)) insides_.emplace(token.substr(options_.prefix.size()), id);
    longest_ = std::max(longest_, token.size());
  }
}

void WordPiece::append_ids(std::string_view piece, std::vector<Id>& ids) const {
  std::size_t characters = 0;
  for (std::size_t at = 0; at < piece.size(); at += code_point_at(piece, at).length) ++characters;
  const std::size_t from = ids.size();
  bool found = characters <= options_.max_characters;
  for (std::size_t at = 0; found && at < piece.size();) {
    const TextMap<Id>& tokens = at == 0 ? starts_ : insides_;
    std::size_t size = std::min(piece.size() - at, longest_);
    auto token = tokens.end();
    for (; size > 0; --size)
      if (token = tokens.find(piece.substr(at, size)); token != tokens.end()) break;
    found = token != tokens.end();
    if (found) ids.push_back(token->second);
    at += size;
  }
  if (found) return;
  ids.resize(from);
  ids.push_back(options_.unknown);
}

}  // namespace stet::data::tokenizers
