// Intrusive reference counting: one pointer wide, one allocation per object, counts are atomic.
// RefCounted is the base; Ref<T> is the handle that owns a share.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace stet {

class RefCounted {
 public:
  RefCounted() = default;
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;

  void retain() const { count_.fetch_add(1, std::memory_order_relaxed); }
  /// True when the caller dropped the last share and must destroy the object.
  bool drop() const {
    if (count_.load(std::memory_order_acquire) == 1) return true;  // sole owner: nobody can race with us
    return count_.fetch_sub(1, std::memory_order_acq_rel) == 1;
  }
  bool unique() const { return count_.load(std::memory_order_acquire) == 1; }

 protected:
  ~RefCounted() = default;

 private:
  mutable std::atomic<std::int32_t> count_{0};
};

/// Objects are destroyed by `dispose(T*)`, found by argument-dependent lookup: autograd nodes override it to
/// destroy long chains without recursion.
template <class T> class Ref {
 public:
  Ref() = default;
  Ref(std::nullptr_t) {}
  explicit Ref(T* p) : p_(p) { grab(); }
  Ref(const Ref& o) : p_(o.p_) { grab(); }
  Ref(Ref&& o) noexcept : p_(std::exchange(o.p_, nullptr)) {}
  template <class U>
  requires std::is_base_of_v<T, U> Ref(Ref<U> o) : p_(o.release()) {}
  Ref& operator=(Ref o) noexcept {
    std::swap(p_, o.p_);
    return *this;
  }
  ~Ref() {
    if (p_ && p_->drop()) dispose(p_);
  }

  T* get() const { return p_; }
  T* operator->() const { return p_; }
  T& operator*() const { return *p_; }
  explicit operator bool() const { return p_ != nullptr; }
  T* release() { return std::exchange(p_, nullptr); }
  friend bool operator==(const Ref& a, const Ref& b) { return a.p_ == b.p_; }

 private:
  void grab() {
    if (p_) p_->retain();
  }
  T* p_ = nullptr;
};

}  // namespace stet
