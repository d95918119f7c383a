// Vocabulary: one map that owns the tokens, one table by id.
#include <stet/data/tokenizers/vocabulary.h>

#include <algorithm>

namespace stet::data::tokenizers {

std::optional<std::string> Vocabulary::add(std::string_view text, Id id) {
  if (id < 0 || id > kMaxId) return "found id " + std::to_string(id) + ", expected 0 to " + std::to_string(kMaxId);
  const auto [entry, added] = ids_.emplace(text, id);
  if (!added) {
    if (entry->second == id) return {};
    return "found a second id " + std::to_string(id) + " beside " + std::to_string(entry->second) +
           ", expected each token once";
  }
  const auto [holder, free] = by_id_.emplace(id, &entry->first);
  if (free && !has(id)) return {};
  const std::string other = has(id) ? token(id) : *holder->second;
  ids_.erase(entry);
  return "found id " + std::to_string(id) + ", which \"" + other + "\" has already, expected each id once";
}

std::optional<std::string> Vocabulary::seal() {
  Id last = size() - 1;
  for (const auto& [id, token] : by_id_) last = std::max(last, id);
  const Id limit = 2 * static_cast<Id>(ids_.size()) + 1024;
  if (last >= limit)
    return "found " + std::to_string(ids_.size()) + " tokens with ids up to " + std::to_string(last) +
           ", expected ids below " + std::to_string(limit);
  tokens_.resize(static_cast<std::size_t>(last + 1), nullptr);
  for (const auto& [id, token] : by_id_) tokens_[static_cast<std::size_t>(id)] = token;
  by_id_ = {};
  return {};
}

std::optional<Id> Vocabulary::id_of(std::string_view token) const {
  const auto entry = ids_.find(token);
  if (entry == ids_.end()) return {};
  return entry->second;
}

}  // namespace stet::data::tokenizers
