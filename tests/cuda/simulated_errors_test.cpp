// What a program sees of a kernel that goes wrong: an Error that names operation, kernel, block and thread; every later
// call fails as it does on a real device, until the context is new.
#if defined(STET_CUDA_SIMULATED)
#include <stet/autograd/ops.h>
#include <stet/cuda/cuda.h>
#include <stet/cuda/launch.h>

#include "support/catch.h"
#include "support/message.h"

using namespace stet;
using Catch::Matchers::Contains;

namespace {

struct Beyond {
  cuda::Pointer<float> out;
  __device__ void operator()(std::int64_t i) const { out[i + 1] = 0; }
};

}  // namespace

TEST_CASE("A broken kernel is an Error that names it, and lasts") {
  const DefaultDevice device(Device::cuda());
  const Tensor x = zeros({40});
  cuda::synchronize();
  cuda::for_each("shift", Beyond{static_cast<float*>(x.raw_mutable())}, 40);  // nobody has waited: nothing is known yet
  const std::string first = test::message_of([&] { static_cast<void>(x.to_vector<float>()); });
  CHECK_THAT(first,
             Contains("CUDA: cudaErrorIllegalAddress") && Contains("shift") && Contains("block") && Contains("thread"));
  CHECK(test::message_of([&] { add(x, x); }) != "no error");
  CHECK_THAT(test::message_of([&] { zeros({1 << 22}); }), Contains("CUDA: cudaErrorIllegalAddress"));
  simulated::reset_error();
  CHECK(sum(ones({40})).item() == 40);
}

TEST_CASE("A recording that has become invalid is an Error of its own, not of what comes next") {
  const DefaultDevice device(Device::cuda());
  const Tensor x = ones({40});
  CHECK_THAT(test::message_of([&] {
               cuda::capture([&] {
                 cudaDeviceSynchronize();  // not permitted here
                 add(x, x);
               });
             }),
             Contains("[add] CUDA: cudaErrorStreamCaptureInvalidated"));
  CHECK(sum(x).item() == 40);
}

TEST_CASE("Memory of the host is no operand of a kernel") {
  const DefaultDevice device(Device::cuda());
  float host[4] = {};
  CHECK_THAT(test::message_of([&] { cuda::for_each("shift", Beyond{host}, 4); }),
             Contains("host pointer where a device pointer belongs"));
  CHECK(sum(ones({40})).item() == 40);
}

TEST_CASE("Memory of a tensor that is gone is no operand either") {
  const DefaultDevice device(Device::cuda());
  float* gone = nullptr;
  {
    const Tensor x = zeros({40});
    gone = static_cast<float*>(x.raw_mutable());
  }
  CHECK_THAT(test::message_of([&] { cuda::for_each("shift", Beyond{gone}, 4); }), Contains("freed memory"));
}
#endif
