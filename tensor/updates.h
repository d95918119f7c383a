// The optimizers' arithmetic: one struct per rule, shared by the CPU and CUDA kernels, which make a single
// fused pass over memory: gradient, quadratic penalty, rule, mask.
#pragma once

#include <cmath>
#include <cstdint>
#include <string_view>

#include <stet/tensor/dtype.h>
#include <stet/tensor/macros.h>
#include <stet/tensor/math.h>
#include <stet/tensor/type_list.h>

namespace stet {

/// Coefficients of one step, already corrected for the step count where a rule needs that.
struct UpdateOptions {
  double lr = 0, momentum = 0, dampening = 0, weight_decay = 0;
  double beta1 = 0, beta2 = 0, eps = 0;
  double correction1 = 1, correction2 = 1;  ///< 1 - beta^t (Adam)
  double clip_value = 0;                    ///< 0: none; else the gradient is clamped to [-c, c]
  double penalty = 0;                       ///< lambda: gradient += lambda * importance * (p - anchor)
  bool nesterov = false, decoupled_decay = false, first_step = false;

  friend bool operator==(const UpdateOptions&, const UpdateOptions&) = default;
};

/// Which elements may change (memory of the device): all, a list of [begin, end) ranges (rows, heads, blocks), or a bit
/// per element.
struct UpdateMask {
  const std::int64_t* ranges = nullptr;  ///< pairs, ascending and disjoint; null: all elements
  std::int64_t range_count = 0;
  const std::uint32_t* bits = nullptr;  ///< bit i % 32 of word i / 32 set: element i may change
};

struct Update {
  DType dtype;  ///< f32 or f64
  std::int64_t count = 0;
  void* parameter = nullptr;
  const void* gradient = nullptr;
  const double* grad_scale = nullptr;  ///< one number on the device that multiplies the gradient: clipping by norm
  void* state[3] = {};
  const void* importance = nullptr;  ///< quadratic penalty; null importance with an anchor means 1 everywhere
  const void* anchor = nullptr;
  UpdateMask mask;
  UpdateOptions options;
};

/// A tensor whose squares are summed, over the elements that may change; the others are not read.
struct Squares {
  DType dtype;  ///< f32 or f64
  std::int64_t count = 0;
  const void* values = nullptr;
  UpdateMask mask;
};

/// Same fields in the element type, so that a kernel converts them once.
template <class T> struct UpdateCoefficients {
  T lr, momentum, undampened, weight_decay, beta1, beta2, one_minus_beta1, one_minus_beta2, eps, step_size,
      inverse_root_correction2;
  bool nesterov, decoupled, first_step;

  explicit UpdateCoefficients(const UpdateOptions& o)
      : lr(static_cast<T>(o.lr)),
        momentum(static_cast<T>(o.momentum)),
        undampened(static_cast<T>(1 - o.dampening)),
        weight_decay(static_cast<T>(o.weight_decay)),
        beta1(static_cast<T>(o.beta1)),
        beta2(static_cast<T>(o.beta2)),
        one_minus_beta1(static_cast<T>(1 - o.beta1)),
        one_minus_beta2(static_cast<T>(1 - o.beta2)),
        eps(static_cast<T>(o.eps)),
        step_size(static_cast<T>(o.lr / o.correction1)),
        inverse_root_correction2(static_cast<T>(1 / std::sqrt(o.correction2))),
        nesterov(o.nesterov),
        decoupled(o.decoupled_decay),
        first_step(o.first_step) {}
};

/// v <- mu v + (1 - damp) g, p <- p - lr v (or lr (g + mu v) with Nesterov); PyTorch's form, first v = g.
struct SgdRule {
  static constexpr std::string_view name = "sgd";
  static constexpr int states = 1;
  template <class T> STET_HD static void apply(T& p, T g, T& v, T&, T&, const UpdateCoefficients<T>& c) {
    g = g + c.weight_decay * p;
    const T fresh = c.first_step ? g : c.momentum * v + c.undampened * g;
    v = fresh;
    const T direction = c.nesterov ? g + c.momentum * fresh : fresh;
    p = p - c.lr * direction;
  }
};

/// Plain gradient descent: no state at all.
struct PlainSgdRule {
  static constexpr std::string_view name = "plain sgd";
  static constexpr int states = 0;
  template <class T> STET_HD static void apply(T& p, T g, T&, T&, T&, const UpdateCoefficients<T>& c) {
    p = p - c.lr * (g + c.weight_decay * p);
  }
};

/// Adam (Kingma & Ba 2015) and, with decoupled decay, AdamW (Loshchilov & Hutter 2019).
struct AdamRule {
  static constexpr std::string_view name = "adam";
  static constexpr int states = 2;
  template <class T> STET_HD static void apply(T& p, T g, T& m, T& v, T&, const UpdateCoefficients<T>& c) {
    const T decayed = c.decoupled ? p - c.lr * c.weight_decay * p : p;
    g = c.decoupled ? g : g + c.weight_decay * p;
    m = m + c.one_minus_beta1 * (g - m);
    v = c.beta2 * v + c.one_minus_beta2 * g * g;
    const T root = math::sqrt(v) * c.inverse_root_correction2 + c.eps;
    p = decayed - c.step_size * (m / root);
  }
};

/// Adam with the running maximum of v (Reddi et al. 2018).
struct AmsgradRule {
  static constexpr std::string_view name = "amsgrad";
  static constexpr int states = 3;
  template <class T> STET_HD static void apply(T& p, T g, T& m, T& v, T& vmax, const UpdateCoefficients<T>& c) {
    const T decayed = c.decoupled ? p - c.lr * c.weight_decay * p : p;
    g = c.decoupled ? g : g + c.weight_decay * p;
    m = m + c.one_minus_beta1 * (g - m);
    v = c.beta2 * v + c.one_minus_beta2 * g * g;
    vmax = v > vmax ? v : vmax;
    const T root = math::sqrt(vmax) * c.inverse_root_correction2 + c.eps;
    p = decayed - c.step_size * (m / root);
  }
};

/// Adagrad (Duchi et al. 2011): s <- s + g^2, p <- p - lr g / (sqrt(s) + eps). lr arrives already decayed.
struct AdagradRule {
  static constexpr std::string_view name = "adagrad";
  static constexpr int states = 1;
  template <class T> STET_HD static void apply(T& p, T g, T& s, T&, T&, const UpdateCoefficients<T>& c) {
    g = g + c.weight_decay * p;
    s = s + g * g;
    p = p - c.lr * (g / (math::sqrt(s) + c.eps));
  }
};

using UpdateRules = TypeList<PlainSgdRule, SgdRule, AdamRule, AmsgradRule, AdagradRule>;

}  // namespace stet
