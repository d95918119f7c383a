// The runtime: errors, devices, launches, graphs, and streams as queues that nothing runs until somebody waits. Whoever
// reads a result without waiting for it gets what was there before. One mutex guards all of it; kernels run under it.
#include <xmmintrin.h>

#include <deque>
#include <memory>
#include <set>
#include <vector>

#include <stet/cuda/simulated/internal.h>

using Nodes = std::vector<std::shared_ptr<const stet::simulated::Work>>;

struct CUgraph_st {
  Nodes nodes;
  std::size_t freed;  // blocks that were freed before it was captured
};
struct CUgraphExec_st : CUgraph_st {};
struct CUstream_st {
  std::deque<stet::simulated::Work> queue;
  bool capturing = false, spoiled = false;
  Nodes captured;
};

namespace stet::simulated {
namespace {

constexpr std::size_t kQueue = 512;
struct Device {
  std::recursive_mutex mutex;
  cudaError_t last = cudaSuccess, sticky = cudaSuccess;
  std::string message;
  std::set<cudaStream_t> streams;
  cudaStream_t latest = nullptr;  // was given work last
};
Device& device() {
  static auto* one = new Device;  // never destroyed: blocks may be freed late
  return *one;
}
CUstream_st& find(cudaStream_t stream) {
  demand(device().streams.contains(stream), cudaErrorInvalidResourceHandle, "stream",
         stream ? "it was destroyed or never created" : "the default stream is not simulated");
  return *stream;
}

/// A GPU keeps denormal numbers, whatever the calling thread does with its own. Fibers do not switch the mode.
class KeepDenormals {
 public:
  KeepDenormals() { _mm_setcsr(before_ & ~0x8040u); }  // FTZ and DAZ
  ~KeepDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_ = _mm_getcsr();
};

void run(CUstream_st& stream) {
  const KeepDenormals mode;
  while (!stream.queue.empty()) {
    const Work work = std::move(stream.queue.front());
    stream.queue.pop_front();
    work();
  }
}

void drop_queues() {
  for (const cudaStream_t stream : device().streams) *stream = {};
  watch_freed = false;
}

}  // namespace

std::recursive_mutex& mutex() { return device().mutex; }

cudaError_t guarded(const Work& call) noexcept {
  const std::lock_guard lock(mutex());
  if (device().sticky != cudaSuccess) return device().sticky;
  try {
    call();
    return cudaSuccess;
  } catch (const std::exception& error) {
    device().message = error.what();
    if (const auto* refused = dynamic_cast<const Refused*>(&error)) return device().last = refused->code;
    drop_queues();
    const bool address = dynamic_cast<const IllegalAddress*>(&error) != nullptr;
    return device().sticky = address ? cudaErrorIllegalAddress : cudaErrorLaunchFailure;
  }
}

bool enqueue(cudaStream_t handle, Work work) {
  CUstream_st& stream = find(handle);
  device().latest = handle;
  if (stream.capturing) {
    demand(!stream.spoiled, cudaErrorStreamCaptureInvalidated, "stream", "its capture has become invalid");
    stream.captured.push_back(std::make_shared<const Work>(std::move(work)));
    return false;
  }
  stream.queue.push_back(std::move(work));
  if (stream.queue.size() >= kQueue) run(stream);
  return !stream.queue.empty();
}

void synchronize_all() {
  for (const cudaStream_t stream : device().streams) run(*stream);
}

void forbid_capture(const char* op, cudaStream_t handle) {
  CUstream_st& stream = find(handle);
  stream.spoiled = stream.capturing;
  demand(!stream.capturing, cudaErrorStreamCaptureUnsupported, op, "not permitted while a stream is capturing");
}

void when_idle(Work work) {
  if (const cudaStream_t stream = device().latest; stream && stream->capturing) return;
  // The last of the queues that have got this far does it: nobody says on which of them the block was used.
  const std::shared_ptr<void> end(nullptr, [work = std::move(work)](void*) { work(); });
  for (const cudaStream_t stream : device().streams)
    if (!stream->queue.empty()) stream->queue.push_back([end] {});
}

std::string last_message() {
  const std::lock_guard lock(mutex());
  return device().message;
}

void reset_error() {
  const std::lock_guard lock(mutex());
  device().last = device().sticky = cudaSuccess;
  device().message.clear();
  drop_queues();
}

cudaError_t launch(const char* kernel, dim3 grid, dim3 block, cudaStream_t stream, Work thread_body) {
  return guarded([&] { enqueue(stream, kernel_work(kernel, grid, block, std::move(thread_body))); });
}

std::size_t last_node(cudaStream_t stream) {
  const std::lock_guard lock(mutex());
  check(!find(stream).captured.empty(), "last_node", "the stream has captured nothing");
  return find(stream).captured.size() - 1;
}

void replace_node(cudaGraphExec_t graph, std::size_t node, const char* kernel, dim3 grid, dim3 block,
                  Work thread_body) {
  const std::lock_guard lock(mutex());
  check(node < graph->nodes.size(), "replace_node", "node ", node, " of ", graph->nodes.size());
  graph->nodes[node] = std::make_shared<const Work>(kernel_work(kernel, grid, block, std::move(thread_body)));
}

}  // namespace stet::simulated

using namespace stet::simulated;

// --- devices and errors -------------------------------------------------------------------------------------------
// Two, so that programs can mix them up; they share memory and errors.
cudaError_t cudaGetDeviceCount(int* count) { return *count = 2, cudaSuccess; }
static thread_local int current_device = 0;
cudaError_t cudaGetDevice(int* index) { return *index = current_device, cudaSuccess; }
cudaError_t cudaSetDevice(int index) {
  if (index < 0 || index > 1) return cudaErrorInvalidDevice;
  return current_device = index, cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {"simulated device", 9, 0, 8};
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  return guarded([] {
    for (const cudaStream_t stream : device().streams) forbid_capture("cudaDeviceSynchronize", stream);
    synchronize_all();
  });
}
cudaError_t cudaGetLastError() {
  const std::lock_guard lock(mutex());
  Device& d = device();
  return d.sticky != cudaSuccess ? d.sticky : std::exchange(d.last, cudaSuccess);
}
const char* cudaGetErrorName(cudaError_t error) {
#define STET_NAME(code, value) \
  if (error == code) return #code;
  STET_CUDA_ERRORS(STET_NAME)
#undef STET_NAME
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

// --- streams ------------------------------------------------------------------------------------------------------
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return guarded([=] {
    *stream = new CUstream_st;
    device().streams.insert(*stream);
  });
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const cudaError_t status = cudaStreamSynchronize(stream);
  if (status != cudaSuccess) return status;
  const std::lock_guard lock(mutex());
  if (device().latest == stream) device().latest = nullptr;
  device().streams.erase(stream);
  return delete stream, cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return guarded([=] {
    forbid_capture("cudaStreamSynchronize", handle);
    run(*handle);
  });
}

// --- graphs -------------------------------------------------------------------------------------------------------
cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  return guarded([=] {
    CUstream_st& stream = find(handle);
    need(!stream.capturing, "cudaStreamBeginCapture", "the stream is capturing already");
    stream.capturing = true;
    device().latest = handle;
  });
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  return guarded([=] {
    CUstream_st& stream = find(handle);
    *graph = nullptr;
    need(stream.capturing, "cudaStreamEndCapture", "no capture was begun on this stream");
    const bool spoiled = std::exchange(stream.spoiled, false);
    const Nodes nodes = std::exchange(stream.captured, {});
    stream.capturing = false;
    demand(!spoiled, cudaErrorStreamCaptureInvalidated, "cudaStreamEndCapture",
           "a call that capturing does not permit has made the capture invalid");
    *graph = new CUgraph_st{nodes, blocks_freed};
  });
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return guarded([=] { *exec = new CUgraphExec_st{*graph}; });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return guarded([=] {
    enqueue(stream, [nodes = exec->nodes, freed = exec->freed] {
      watch_freed = freed != blocks_freed;
      for (const auto& node : nodes) (*node)();
      watch_freed = false;
    });
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return delete exec, cudaSuccess; }
