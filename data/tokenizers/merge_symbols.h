// The merging loop that byte-level BPE and llama2.c's tokenizer share. Private to data/tokenizers/.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include <stet/data/tokenizers/model.h>

namespace stet::data::tokenizers {

/// Merges neighbours until find(left, right), a MergeTable::Merge or null, knows none: lowest rank first, leftmost
/// of equals. A queue of candidates: n log n, where looking for the best pair anew each time would be n^2.
template <class Find> void merge_symbols(std::vector<Id>& ids, std::size_t from, Find&& find) {
  struct Symbol {
    std::int32_t previous, next;  // -1 at the ends; next -2: merged into the one before
    std::uint32_t rank, merged;   // of this symbol with the next
  };
  constexpr std::uint32_t kNone = 0xffffffff;
  const auto count = static_cast<std::int32_t>(ids.size() - from);
  if (count < 2) return;
  thread_local std::vector<Symbol> symbols;
  thread_local std::vector<std::uint64_t> heap;  // rank, position
  symbols.resize(static_cast<std::size_t>(count));
  heap.clear();
  Id* id = ids.data() + from;
  const auto look = [&](std::int32_t at) {
    Symbol& s = symbols[static_cast<std::size_t>(at)];
    s.rank = kNone;
    if (s.next < 0) return false;
    const auto* merge = find(id[at], id[s.next]);
    if (!merge) return false;
    s.rank = merge->rank;
    s.merged = merge->merged;
    heap.push_back(std::uint64_t{s.rank} << 32 | static_cast<std::uint32_t>(at));
    return true;
  };
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[static_cast<std::size_t>(i)] = {i - 1, i + 1 < count ? i + 1 : -1, kNone, 0};
    look(i);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto rank = static_cast<std::uint32_t>(heap.back() >> 32);
    const auto at = static_cast<std::int32_t>(heap.back() & 0xffffffff);
    heap.pop_back();
    Symbol& s = symbols[static_cast<std::size_t>(at)];
    if (s.next < 0 || s.rank != rank) continue;  // overtaken by another merge
    Symbol& eaten = symbols[static_cast<std::size_t>(s.next)];
    id[at] = s.merged;
    s.next = eaten.next;
    eaten.next = -2;
    if (s.next >= 0) symbols[static_cast<std::size_t>(s.next)].previous = at;
    if (look(at)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
    if (s.previous >= 0 && look(s.previous)) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  }
  std::size_t kept = from;
  for (std::int32_t i = 0; i >= 0; i = symbols[static_cast<std::size_t>(i)].next) ids[kept++] = id[i];
  ids.resize(kept);
}

}  // namespace stet::data::tokenizers
