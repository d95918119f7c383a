// Whole steps as CUDA graphs. While the step runs, the stream takes notes instead of working; then the graph runs,
// which does the step. What depends on the host's counters (each_replay) is done again before every replay, and its
// launches then replace the arguments of those in the graph: the schedule of an optimizer and the draws of a generator
// go on as in an eager step.
#include <vector>

#include <stet/cuda/allocator.h>
#include <stet/cuda/launch.h>
#include <stet/tensor/device.h>
#include <stet/tensor/error.h>

namespace stet::cuda {

struct Graph::Recording {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  Pool* pool = nullptr;
  int device = 0;
  std::vector<std::function<void()>> before_replay;
#if defined(STET_CUDA_SIMULATED)
  std::vector<std::size_t> noted;  // launches in the order in which before_replay makes them
#else
  std::vector<cudaGraphNode_t> noted;
#endif
  std::size_t next = 0;  // of noted, while replacing
  std::int64_t replays = 0;

  Recording() = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() {
    before_replay.clear();  // tensors that they hold go back to the pool first
    if (executable) forget(cudaGraphExecDestroy(executable));
    if (graph) forget(cudaGraphDestroy(graph));
    if (!pool) return;
    static_cast<void>(cuda_kernels(device));
    drop_pool(pool);
  }
};

namespace {

thread_local Graph::Recording* current = nullptr;
thread_local bool recording_now = false;
thread_local Launching mode = Launching::as_ever;

/// A mode for a scope, also when it is left by an exception.
class Mode {
 public:
  explicit Mode(Launching now) : before_(mode) { mode = now; }
  ~Mode() { mode = before_; }
  Mode(const Mode&) = delete;
  Mode& operator=(const Mode&) = delete;

 private:
  Launching before_;
};

/// The stream records as long as this lives; finish() keeps what it recorded.
class Recorder {
 public:
  explicit Recorder(Graph::Recording& into) : into_(into), stream_(stream()) {
    release_blocks();  // what the step used before is what it needs now, and nothing can be given back meanwhile
    reserve_stream();
    into.pool = begin_pool();
    const cudaError_t status = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed);
    if (status != cudaSuccess) end_pool(), free_stream();
    check_cuda("capture", status);
    current = &into;
    recording_now = true;
  }
  ~Recorder() {
    if (recording_now) forget(stop());
  }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  void finish() {
    check_cuda("capture", stop());
    check_cuda("capture", cudaGraphInstantiate(&into_.executable, into_.graph, 0));
  }

 private:
  cudaError_t stop() {
    recording_now = false;
    current = nullptr;
    static_cast<void>(cuda_kernels(into_.device));  // the step may have let go of memory elsewhere
    const cudaError_t status = cudaStreamEndCapture(stream_, &into_.graph);
    end_pool();
    free_stream();
    return status;
  }
  Graph::Recording& into_;
  cudaStream_t stream_;
};

void launch_graph(std::string_view op, const Graph::Recording& recording) {
  static_cast<void>(complaint());  // its kernels may leave one every time
  ++count().launches;
  check_cuda(op, cudaGraphLaunch(recording.executable, stream()));
}

}  // namespace

bool is_recording() { return recording_now; }
Launching launching() { return mode; }

void each_replay(std::function<void()> work) {
  if (recording_now) {
    const Mode noting(Launching::noting);
    work();
    current->before_replay.push_back(std::move(work));
  } else {
    work();
  }
}

#if defined(STET_CUDA_SIMULATED)

void note_launch() { current->noted.push_back(simulated::last_node(stream())); }

void replace_launch(std::string_view op, dim3 grid, dim3 block, std::function<void()> body) {
  check(current->next < current->noted.size(), op, "a replay launches more than was recorded");
  simulated::replace_node(current->executable, current->noted[current->next++], op.data(), grid, block,
                          std::move(body));
}

#else

void note_launch() {
  cudaStreamCaptureStatus status;
  cudaGraph_t graph = nullptr;
  const cudaGraphNode_t* last = nullptr;
  std::size_t count = 0;
#if CUDART_VERSION >= 13000
  const cudaGraphEdgeData* edges = nullptr;
  check_cuda("capture", cudaStreamGetCaptureInfo(stream(), &status, nullptr, &graph, &last, &edges, &count));
#else
  check_cuda("capture", cudaStreamGetCaptureInfo_v2(stream(), &status, nullptr, &graph, &last, &count));
#endif
  check(count == 1, "capture", count, " last launches in one stream");
  current->noted.push_back(last[0]);
}

void replace_launch(std::string_view op, cudaKernelNodeParams parameters) {
  check(current->next < current->noted.size(), op, "a replay launches more than was recorded");
  check_cuda(op, cudaGraphExecKernelNodeSetParams(current->executable, current->noted[current->next++], &parameters));
}

#endif

Graph capture(const std::function<void()>& step) {
  check(!recording_now, "capture", "a step is being recorded already");
  auto recording = std::make_shared<Graph::Recording>();
  if (const Device device = default_device(); device.type == DeviceType::cuda) recording->device = device.index;
  static_cast<void>(cuda_kernels(recording->device));
  Recorder recorder(*recording);
  step();
  recorder.finish();
  launch_graph("capture", *recording);
  return Graph(std::move(recording));
}

void Graph::replay() {
  check(!recording_now, "replay", "inside a recorded step");
  Recording& r = *recording_;
  static_cast<void>(cuda_kernels(r.device));
  {
    const Mode replacing(Launching::replacing);
    current = &r;
    r.next = 0;
    for (const auto& work : r.before_replay) work();
    current = nullptr;
    check(r.next == r.noted.size(), "replay", r.next, " launches where ", r.noted.size(), " were recorded");
  }
  launch_graph("replay", r);
  ++r.replays;
}

std::int64_t Graph::replays() const { return recording_->replays; }

}  // namespace stet::cuda
