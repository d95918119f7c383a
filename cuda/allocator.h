// Pools of the caching allocator. A recorded graph refers to addresses: between begin_pool() and end_pool() memory
// comes from a pool that nobody else uses as long as the graph lives.
#pragma once

#include <vector>

#include <stet/tensor/size_class.h>

namespace stet::cuda {

struct Pool {
  std::vector<void*> bins[SizeClass::kCount];
};

Pool* begin_pool();
void end_pool();
void drop_pool(Pool* pool);

}  // namespace stet::cuda
