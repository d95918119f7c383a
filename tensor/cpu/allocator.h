// The CPU's caching allocator: freed blocks wait in size classes for the next request of their class, so that
// a training step after the first asks the system for nothing. Thread-safe.
#pragma once

#include <cstdint>

namespace stet::cpu {

/// 64-byte aligned memory of at least `bytes`, or null.
void* allocate(std::int64_t bytes);
/// `bytes` as given to allocate().
void deallocate(void* data, std::int64_t bytes) noexcept;

std::int64_t allocator_system_bytes();
std::int64_t allocator_system_allocations();
void allocator_release();
void allocator_set_limit(std::int64_t bytes);

}  // namespace stet::cpu
