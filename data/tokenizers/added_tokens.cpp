// AddedTokens: candidates by first byte; a text without any of these bytes costs one look at each byte.
#include <stet/data/tokenizers/added_tokens.h>

#include <algorithm>

#include <stet/data/tokenizers/unicode.h>

namespace stet::data::tokenizers {
namespace {

/// Where the white space that ends at `end` begins, not before `from`.
std::size_t space_before(std::string_view text, std::size_t from, std::size_t end) {
  std::size_t begin = end;
  for (std::size_t at = from; at < end;) {
    const CodePoint c = code_point_at(text, at);
    if (class_of(c.value) != CharClass::space) begin = end;
    else if (begin == end) begin = at;
    at += c.length;
  }
  return begin;
}

std::size_t space_after(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const CodePoint c = code_point_at(text, at);
    if (class_of(c.value) != CharClass::space) break;
    at += c.length;
  }
  return at;
}

}  // namespace

void AddedTokens::add(const AddedToken& token, std::string_view searched) {
  if (searched.empty()) return;
  entries_.push_back({std::string(searched), token});
  by_first_byte_[static_cast<unsigned char>(searched.front())].push_back(entries_.size() - 1);
  starts_[static_cast<unsigned char>(searched.front())] = true;
}

void AddedTokens::seal() {
  for (auto& candidates : by_first_byte_)
    std::stable_sort(candidates.begin(), candidates.end(),
                     [&](auto a, auto b) { return entries_[a].text.size() > entries_[b].text.size(); });
}

const AddedTokens::Entry* AddedTokens::longest_at(std::string_view text, std::size_t at) const {
  for (const std::size_t i : by_first_byte_[static_cast<unsigned char>(text[at])])
    if (text.substr(at).starts_with(entries_[i].text)) return &entries_[i];
  return nullptr;
}

AddedTokens::Match AddedTokens::find(std::string_view text, std::size_t from, bool with_special) const {
  if (entries_.empty()) return {std::string_view::npos, 0, 0};
  for (std::size_t at = from; at < text.size();) {
    if (!starts_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    const Entry* entry = longest_at(text, at);
    if (entry && (with_special || !entry->token.special)) {
      const std::size_t end = at + entry->text.size();
      return {entry->token.strip_left ? space_before(text, from, at) : at,
              entry->token.strip_right ? space_after(text, end) : end, entry->token.id};
    }
    at += entry ? entry->text.size() : 1;
  }
  return {std::string_view::npos, 0, 0};
}

}  // namespace stet::data::tokenizers
