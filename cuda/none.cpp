// A build without CUDA.
#include <stet/cuda/cuda.h>
#include <stet/tensor/error.h>
#include <stet/tensor/kernels.h>

namespace stet {
namespace {

[[noreturn]] void no_cuda() { fail("cuda", "this build has no CUDA: configure with -DSTET_CUDA=ON"); }

}  // namespace

const Kernels& cuda_kernels(int) { no_cuda(); }

namespace cuda {

struct Graph::Recording {};

bool available() { return false; }
bool simulated() { return false; }
int device_count() { return 0; }
std::string device_name(int) { no_cuda(); }
Counters counters() { return {}; }
void synchronize() { no_cuda(); }
void allow_tf32(bool) {}
Graph capture(const std::function<void()>&) { no_cuda(); }
void Graph::replay() { no_cuda(); }
std::int64_t Graph::replays() const { return 0; }

}  // namespace cuda
}  // namespace stet
