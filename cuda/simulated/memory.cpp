// Device memory: one large range of addresses that nothing can touch, of which allocations open pages. Addresses are
// handed out upwards and never again, so a freed one stays inaccessible. What CUDA leaves open goes the way that shows
// a mistake: a copy to the host arrives as late as it may.
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include <stet/cuda/simulated/internal.h>

namespace stet::simulated {

bool watch_freed = false;
std::size_t blocks_freed = 0;

namespace {

constexpr std::size_t kPage = 4096, kRange = std::size_t{1} << 38;

struct Block {
  std::size_t bytes, in_use;
  std::size_t pages() const { return (bytes + kGuard + kPage - 1) / kPage * kPage; }
};

struct Memory {
  char *begin = nullptr, *next = nullptr;
  std::size_t total = std::size_t{8} << 30, used = 0;
  std::map<const char*, Block> blocks;

  Memory() {
    void* range = mmap(nullptr, kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(range != MAP_FAILED, "simulated device", "no range of addresses for the device's memory");
    begin = next = static_cast<char*>(range);
  }
};

Memory& memory() {
  static auto* one = new Memory;  // never destroyed: blocks may be freed late
  return *one;
}

/// The block that `p` lies in, or the end.
auto find(const void* p) {
  auto& blocks = memory().blocks;
  const auto* at = static_cast<const char*>(p);
  auto it = blocks.upper_bound(at);
  if (it == blocks.begin()) return blocks.end();
  --it;
  return at <= it->first + it->second.bytes ? it : blocks.end();
}

/// Where a pointer into memory in use lies.
Extent in_use(std::string_view op, const char* role, const void* p) {
  need(is_device(p), op, role, p, " is a host pointer where a device pointer belongs");
  const auto it = find(p);
  need(it != memory().blocks.end(), op, role, p, " points to freed memory, or to none that was allocated");
  need(it->second.in_use > 0, op, role, p, " points to freed memory: its block is back in the cache");
  const auto begin = reinterpret_cast<std::uintptr_t>(it->first);
  return {begin, begin + it->second.in_use};
}

void need_host(const char* op, const char* role, const void* p) {
  need(p && !is_device(p), op, role, p, " is null or a device pointer where a host pointer belongs");
}

void check_copy(const char* op, void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  kind == cudaMemcpyDeviceToHost ? need_host(op, "target: ", to) : need_device(op, "target: ", to, bytes);
  kind == cudaMemcpyHostToDevice ? need_host(op, "source: ", from) : need_device(op, "source: ", from, bytes);
}

}  // namespace

bool is_device(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(memory().begin) < kRange;
}

void set_memory(std::size_t bytes) {
  const std::lock_guard lock(mutex());
  memory().total = bytes;
}

Extent extent_of(const void* p) {
  const std::lock_guard lock(mutex());
  return p ? in_use("device pointer", "", p) : Extent{};
}

bool is_freed(std::uintptr_t at) {
  const auto* p = reinterpret_cast<const void*>(at);
  return is_device(p) && find(p) == memory().blocks.end();
}

void check_alive(std::string_view op, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers)
    check(!is_freed(reinterpret_cast<std::uintptr_t>(p)), op, p, " points to memory that was freed since the capture");
}

void need_device(std::string_view op, const char* role, const void* p, std::size_t bytes) {
  if (bytes == 0) return;
  const Extent in = in_use(op, role, p);
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(p) - in.begin, size = in.end - in.begin;
  need(offset <= size && bytes <= size - offset, op, role, bytes, " bytes from byte ", offset, " on, outside the ",
       size, " bytes of the allocation");
}

void outside(std::uintptr_t at, Extent in, std::int64_t index, std::int64_t count, std::size_t size) {
  std::ostringstream out;
  if (!at) out << "null pointer used";
  else if (in.begin == in.end) out << "pointer used that belongs to no memory";
  else if (is_freed(in.begin)) out << "access to memory that was freed since the capture";
  else {
    const auto offset = static_cast<std::int64_t>(at - in.begin), each = static_cast<std::int64_t>(size);
    out << "access outside the " << (is_device(reinterpret_cast<void*>(in.begin)) ? "allocation: " : "shared array: ")
        << count << " element" << (count == 1 ? "" : "s") << " of " << size << " bytes at index " << index
        << ", that is bytes " << offset + index * each << " to " << offset + (index + count) * each << " of "
        << in.end - in.begin;
  }
  throw IllegalAddress(out.str());
}

void mark(void* block, std::size_t bytes) {
  guarded([=] {
    const auto it = memory().blocks.find(static_cast<char*>(block));
    check(it != memory().blocks.end() && bytes <= it->second.bytes, "mark", block, " is no block of ", bytes, " bytes");
    const std::size_t all = it->second.bytes, before = std::exchange(it->second.in_use, bytes);
    ASAN_UNPOISON_MEMORY_REGION(block, bytes);  // a capture queues nothing
    // In the stream's order: work that is queued still uses the block as it was when that work was given.
    when_idle([=, from = static_cast<char*>(block)] {
      ASAN_UNPOISON_MEMORY_REGION(from, std::max(before, bytes));
      if (before > bytes) std::memset(from + bytes, kPoison, before - bytes);
      ASAN_POISON_MEMORY_REGION(from + bytes, all - bytes);
    });
  });
}

}  // namespace stet::simulated

using namespace stet::simulated;

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  return guarded([=] {
    *pointer = nullptr;
    if (!bytes) return;
    Memory& m = memory();
    const Block block{bytes, bytes};
    const bool fits = bytes <= m.total && m.used <= m.total - bytes;
    char* const at = m.next + kPage;  // untouchable pages lie between blocks
    demand(fits && block.pages() + kPage <= static_cast<std::size_t>(m.begin + kRange - m.next) &&
               mprotect(at, block.pages(), PROT_READ | PROT_WRITE) == 0,
           cudaErrorMemoryAllocation, "cudaMalloc", "no room for ", bytes, " bytes: ", m.used, " of ", m.total,
           " are in use");
    std::memset(at, kPoison, block.pages());
    ASAN_POISON_MEMORY_REGION(at + bytes, block.pages() - bytes);
    m.next = at + block.pages();
    m.blocks[at] = block;
    m.used += bytes;
    *pointer = at;
  });
}
cudaError_t cudaFree(void* pointer) {
  return guarded([=] {
    if (!pointer) return;
    synchronize_all();
    const auto it = find(pointer);
    need(it != memory().blocks.end(), "cudaFree", pointer, " was freed before or is no device pointer");
    need(it->first == pointer, "cudaFree", pointer, " lies inside an allocation: expected its beginning");
    const Block block = it->second;
    ASAN_UNPOISON_MEMORY_REGION(pointer, block.pages());
    const auto* bytes = static_cast<const unsigned char*>(pointer);
    const bool intact =
        std::all_of(bytes + block.bytes, bytes + block.pages(), [](unsigned char b) { return b == kPoison; });
    memory().blocks.erase(it);
    memory().used -= block.bytes;
    ++blocks_freed;
    madvise(pointer, block.pages(), MADV_DONTNEED);
    mprotect(pointer, block.pages(), PROT_NONE);
    stet::check(intact, "cudaFree", "the bytes behind the allocation of ", block.bytes, " bytes were overwritten");
  });
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return guarded([=] {
    *total = memory().total;
    *free = *total - std::min(*total, memory().used);
  });
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return guarded([=] {
    check_copy("cudaMemcpy", to, from, bytes, kind);
    std::memmove(to, from, bytes);  // the streams do not wait for it, nor it for them
  });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return guarded([=] {
    if (!bytes) return;
    check_copy("cudaMemcpyAsync", to, from, bytes, kind);
    if (kind != cudaMemcpyDeviceToDevice) forbid_capture("cudaMemcpyAsync", stream);
    if (kind == cudaMemcpyHostToDevice) {  // read now, as the real one does
      const auto* first = static_cast<const char*>(from);
      enqueue(stream, [to, staged = std::vector<char>(first, first + bytes)] {
        std::memcpy(to, staged.data(), staged.size());
      });
      return;
    }
    const bool waits = enqueue(stream, [=] {
      check_alive("cudaMemcpyAsync", {to, from});
      std::memmove(to, from, bytes);
    });
    if (waits && kind == cudaMemcpyDeviceToHost) std::memset(to, kPoison, bytes);
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return guarded([=] {
    need_device("cudaMemsetAsync", "target: ", to, bytes);
    enqueue(stream, [=] {
      check_alive("cudaMemsetAsync", {to});
      std::memset(to, value, bytes);
    });
  });
}
