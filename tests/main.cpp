// The entry point of stet_tests. Catch2 does all the work; a session of our own keeps one source right for
// versions 2 and 3. STET_TEST_DEVICE=cuda makes every tensor of every test on that device.
#define CATCH_CONFIG_RUNNER
#include "support/catch.h"

#include <cstdlib>
#include <iostream>
#include <string_view>

#include <stet/cuda/cuda.h>
#include <stet/tensor/device.h>

int main(int argc, char** argv) {
  const char* device = std::getenv("STET_TEST_DEVICE");
  if (device && std::string_view(device) == "cuda") {
    if (!stet::cuda::available()) {
      std::cout << "skipped: no CUDA device in this build or on this machine\n";
      return 77;
    }
    stet::set_default_device(stet::Device::cuda());
    std::cout << "on cuda:0, " << stet::cuda::device_name() << (stet::cuda::simulated() ? " (simulated)" : "") << '\n';
  }
  return Catch::Session().run(argc, argv);
}
