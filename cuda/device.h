// What the backend's own files share: the stream, errors, memory, and the word that kernels leave when an index is
// out of range.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

#include <stet/cuda/cuda.h>
#include <stet/tensor/kernels.h>

namespace stet::cuda {

inline constexpr int kMaxDevices = 16;
/// The current device's T; there is one for each, and they outlive every static tensor.
template <class T> T& of_current_device() {
  static auto* instances = new T[kMaxDevices];
  int device = 0;
  static_cast<void>(cudaGetDevice(&device));
  return instances[device];
}

/// All work of a device goes to one stream, in order. An Error where the work would go into a recording that is not
/// this thread's, or past this thread's own on another device.
cudaStream_t stream();
/// The current device's stream is this thread's alone, or everybody's again.
void reserve_stream();
void free_stream();
/// An Error that names the operation, or OutOfMemory.
void check_cuda(std::string_view op, cudaError_t status);
/// A status that nobody is told of. The runtime keeps it as well, where the next operation would take it for its own.
inline void forget(cudaError_t status) {
  if (status != cudaSuccess) static_cast<void>(cudaGetLastError());
}

// The caching allocator. Blocks are given back in stream order: who gets one next may write to it at once.
void* allocate(std::int64_t bytes);
void deallocate(void* data, std::int64_t bytes) noexcept;
void release_blocks();
void set_limit(std::int64_t bytes);

/// Memory for the length of an operation.
class Scratch {
 public:
  Scratch(std::string_view op, std::int64_t bytes);
  ~Scratch() { deallocate(data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T> T* as() const { return static_cast<T*>(data_); }

 private:
  void* data_;
  std::int64_t bytes_;
};

/// The first index out of range since the last look; kernels carry on with a valid one.
struct Complaint {
  unsigned what;  ///< 0: none
  unsigned unused;
  std::int64_t value, position, size;
};
/// Where a kernel that is about to be launched may leave one. The next download or synchronisation throws it.
Complaint* complaint();

/// The sum of the table, f32 or f64, for kernels that leave parts of one.
void sum(DType dtype, const Reduce& job);

void fill_elementwise(Kernels& table);
void fill_copy(Kernels& table);
void fill_reduce(Kernels& table);
void fill_rows(Kernels& table);
void fill_attention(Kernels& table);
void fill_indexing(Kernels& table);
void fill_sort(Kernels& table);
void fill_random(Kernels& table);
void fill_update(Kernels& table);
void fill_gemm(Kernels& table);

// Recording (graph.cu).

/// Whether the stream is recorded instead of run. Waiting and transfers are Errors then.
bool is_recording();
void each_replay(std::function<void()> work);
/// A launch with arguments that change from replay to replay: what the launch template does with it.
enum class Launching : std::uint8_t { as_ever, noting, replacing };
Launching launching();
/// The launch that was just recorded may get new arguments later.
void note_launch();
/// New arguments for the next launch that was noted.
#if defined(STET_CUDA_SIMULATED)
void replace_launch(std::string_view op, dim3 grid, dim3 block, std::function<void()> body);
#else
void replace_launch(std::string_view op, cudaKernelNodeParams parameters);
#endif

/// The public counters as they are kept, written by the files that do the counted thing.
struct Counting {
  std::atomic<std::int64_t> launches{0}, synchronizations{0}, transfers{0}, allocations{0}, held_bytes{0};
};
Counting& count();

}  // namespace stet::cuda
