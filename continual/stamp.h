// Which write a tensor's memory has seen last: how caches of what was computed from it notice that it is old.
#pragma once

#include <cstdint>

#include <stet/tensor/storage.h>
#include <stet/tensor/tensor.h>

namespace stet::continual {

/// Equal as long as the tensor has the same memory and no in-place write has been counted in it. Keeps the memory, so
/// that its address is not given to another tensor in the meantime.
class Stamp {
 public:
  explicit Stamp(const Tensor& tensor) : storage_(tensor.impl().storage), version_(storage_->version()) {}
  friend bool operator==(const Stamp& a, const Stamp& b) {
    return a.storage_ == b.storage_ && a.version_ == b.version_;
  }

 private:
  Ref<Storage> storage_;
  std::uint32_t version_;
};

}  // namespace stet::continual
