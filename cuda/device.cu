// Devices, streams, errors, transfers, and the kernel table.
#include <mutex>
#include <string>
#include <vector>

#include <stet/cuda/launch.h>
#include <stet/tensor/error.h>

namespace stet {
namespace cuda {
namespace {

struct Devices {
  int count = 0;
  cudaError_t status = cudaSuccess;
  Devices() {
    status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) count = 0;
    count = std::min(count, kMaxDevices);
  }
};
const Devices& devices() {
  static const Devices found;
  return found;
}

struct DeviceState {
  std::once_flag made;
  cudaStream_t stream = nullptr;
  Complaint* complaint = nullptr;         // device memory
  std::atomic<bool> may_complain{false};  // a kernel that checks indices was launched since the last look
  std::atomic<const void*> recorder{};    // current_device of the thread that records here
};

thread_local int current_device = -1;

DeviceState& state() {
  static DeviceState states[kMaxDevices];
  DeviceState& s = states[std::max(current_device, 0)];
  std::call_once(s.made, [&s] {
    check_cuda("cuda", cudaStreamCreateWithFlags(&s.stream, cudaStreamNonBlocking));
    check_cuda("cuda", cudaMalloc(reinterpret_cast<void**>(&s.complaint), sizeof(Complaint)));
    check_cuda("cuda", cudaMemsetAsync(s.complaint, 0, sizeof(Complaint), s.stream));
  });
  return s;
}

std::string text_of(cudaError_t status) {
  std::string text = std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status);
#if defined(STET_CUDA_SIMULATED)
  if (const std::string more = simulated::last_message(); !more.empty()) text += "; simulated: " + more;
#endif
  return text;
}

[[noreturn]] void throw_complaint(const Complaint& c) {
  const std::string_view op = name_of(static_cast<Checked>(c.what));
  if (c.what == static_cast<unsigned>(Checked::cross_entropy))
    fail(op, "target ", c.value, " at position ", c.position, " is out of range for ", c.size, " classes");
  fail(op, "index ", c.value, " at position ", c.position, " is out of range for size ", c.size);
}

/// Waits, and throws what kernels complained of.
void wait(std::string_view op) {
  if (is_recording())
    fail(op, "the host would have to wait inside a recorded step: keep item(), printing and copies to the host out");
  static_cast<void>(stream());  // another thread's recording does not survive a wait
  DeviceState& s = state();
  Complaint found{};
  if (s.may_complain.exchange(false))  // before the look: what another thread launches meanwhile is for the next one
    check_cuda(op, cudaMemcpyAsync(&found, s.complaint, sizeof found, cudaMemcpyDeviceToHost, s.stream));
  ++count().synchronizations;
  check_cuda(op, cudaStreamSynchronize(s.stream));
  if (found.what == 0) return;
  check_cuda(op, cudaMemsetAsync(s.complaint, 0, sizeof(Complaint), stream()));
  throw_complaint(found);
}

void upload(void* device, const void* host, std::int64_t bytes) {
  if (is_recording())
    fail("upload", bytes, " bytes from the host inside a recorded step: write them with copy_ before the replay");
  ++count().transfers;
  check_cuda("upload",
             cudaMemcpyAsync(device, host, static_cast<std::size_t>(bytes), cudaMemcpyHostToDevice, stream()));
}

void download(void* host, const void* device, std::int64_t bytes) {
  if (is_recording()) return wait("download");
  ++count().transfers;
  check_cuda("download",
             cudaMemcpyAsync(host, device, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, stream()));
  wait("download");
}

Kernels make_table() {
  Kernels table;
  fill_elementwise(table);
  fill_copy(table);
  fill_reduce(table);
  fill_rows(table);
  fill_attention(table);
  fill_indexing(table);
  fill_sort(table);
  fill_random(table);
  fill_update(table);
  fill_gemm(table);
  table.alloc = allocate;
  table.free = deallocate;
  table.release = release_blocks;
  table.set_limit = set_limit;
  table.system_memory = [] { return SystemMemory{count().held_bytes, count().allocations}; };
  table.upload = upload;
  table.download = download;
  table.sync = [] { wait("synchronize"); };
  table.recording = is_recording;
  table.each_replay = each_replay;
  return table;
}

}  // namespace

cudaStream_t stream() {
  DeviceState& s = state();
  const void* mine = is_recording() ? &current_device : nullptr;
  if (s.recorder != mine)
    fail("capture", "work for cuda:", current_device, " while ",
         mine ? "a step on another device is recorded" : "another thread records a step there");
  return s.stream;
}
void reserve_stream() {
  const void* nobody = nullptr;
  check(state().recorder.compare_exchange_strong(nobody, &current_device), "capture",
        "another thread records a step on cuda:", current_device);
}
void free_stream() { state().recorder = nullptr; }

Complaint* complaint() {
  DeviceState& s = state();
  s.may_complain = true;
  return s.complaint;
}

void check_cuda(std::string_view op, cudaError_t status) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());  // what is not sticky must not be found by the next operation
  if (status == cudaErrorMemoryAllocation) fail<OutOfMemory>(op, "CUDA: ", text_of(status));
  fail(op, "CUDA: ", text_of(status));
}

Scratch::Scratch(std::string_view op, std::int64_t bytes) : data_(allocate(bytes)), bytes_(bytes) {
  if (!data_) fail<OutOfMemory>(op, "the device has no memory for ", bytes, " bytes of scratch");
}

Counting& count() {
  static Counting counting;
  return counting;
}

Counters counters() {
  const Counting& c = count();
  return {c.launches, c.synchronizations, c.transfers, c.allocations, c.held_bytes};
}
bool available() { return devices().count > 0; }
int device_count() { return devices().count; }

bool simulated() {
#if defined(STET_CUDA_SIMULATED)
  return true;
#else
  return false;
#endif
}

std::string device_name(int index) {
  static_cast<void>(cuda_kernels(index));
  cudaDeviceProp properties;
  check_cuda("cuda", cudaGetDeviceProperties(&properties, index));
  return properties.name;
}

void synchronize() { kernels(Device::cuda(std::max(current_device, 0))).sync(); }

}  // namespace cuda

const Kernels& cuda_kernels(int index) {
  const cuda::Devices& found = cuda::devices();
  check(found.count > 0, "cuda", "no CUDA device on this machine: ", cuda::text_of(found.status));
  check(index >= 0 && index < found.count, "cuda", "no device ", index, ": this machine has ", found.count);
  if (cuda::current_device != index) {
    cuda::check_cuda("cuda", cudaSetDevice(index));
    cuda::current_device = index;
  }
  static const Kernels* table = new Kernels(cuda::make_table());  // outlives every static tensor
  return *table;
}

}  // namespace stet
