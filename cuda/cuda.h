// The CUDA backend as a program sees it: what there is, what it did, and whole steps as CUDA graphs. The
// operations themselves are reached through Device::cuda(); see docs/cuda.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace stet::cuda {

/// Whether this build and this machine have a CUDA device. Never throws.
bool available();
/// A simulated device runs the same kernels on the CPU: right, but slow, and no measure of anything.
bool simulated();
int device_count();
/// "NVIDIA H100 80GB HBM3", "simulated device".
std::string device_name(int index = 0);

/// What this process has asked of its devices so far. In a steady training step all but launches stay still.
struct Counters {
  std::int64_t launches = 0;          ///< kernels, graph launches included as one
  std::int64_t synchronizations = 0;  ///< times the host waited
  std::int64_t transfers = 0;         ///< copies between host and device
  std::int64_t allocations = 0;       ///< times the driver was asked for memory
  std::int64_t held_bytes = 0;        ///< memory held from the driver, cached blocks included
};
Counters counters();

/// Waits until the device has done all that was asked; an Error if any of it failed.
void synchronize();

/// TF32 in f32 matrix products: about 1e-3 relative, several times faster. Off unless asked for.
void allow_tf32(bool allow);

/// A recorded step. Replaying gives the bits of the step itself, without the host's part of the work.
class Graph {
 public:
  /// Runs the recorded work once more on the stream; does not wait.
  void replay();
  std::int64_t replays() const;

  struct Recording;

 private:
  friend Graph capture(const std::function<void()>& step);
  explicit Graph(std::shared_ptr<Recording> recording) : recording_(std::move(recording)) {}
  std::shared_ptr<Recording> recording_;
};

/// Does the step, and records what it asked of the device. `step` must have been done before (so that masks and
/// optimizer state are there) and reads its inputs from tensors that stay in place: write the next batch into them
/// with copy_. Schedules, bias corrections and random draws go on from replay to replay; optimizer, modules and
/// generators must outlive the graph. Whatever makes the host wait (item(), printing) is an Error. The device is the
/// default device, or cuda:0 where that is the CPU; work on another one is an Error inside the step, and so is, as long
/// as the step is recorded, what other threads ask of this one.
Graph capture(const std::function<void()>& step);

}  // namespace stet::cuda
