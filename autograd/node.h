// The graph that backward walks. A Node stands for one operation that was carried out: it holds the nodes of
// its inputs, whatever its derivative needs, and a description of its output. Leaves accumulate gradients.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <stet/tensor/kernels.h>
#include <stet/tensor/tensor.h>

namespace stet {

class Node;
class Backward;

/// The nodes of an operation's operands; null for one that needs no gradient. Up to three stand inline.
class NodeInputs {
 public:
  NodeInputs() {}
  explicit NodeInputs(int count) : count_(count) {
    if (count > kInline) many_ = new Ref<Node>[static_cast<std::size_t>(count)];
    else
      for (auto& slot : few_) new (&slot) Ref<Node>;
  }
  NodeInputs(const NodeInputs&) = delete;
  NodeInputs& operator=(const NodeInputs&) = delete;
  ~NodeInputs();
  int size() const { return count_; }
  Ref<Node>& operator[](int i) { return count_ > kInline ? many_[i] : few_[i]; }
  const Ref<Node>& operator[](int i) const { return count_ > kInline ? many_[i] : few_[i]; }

 private:
  static constexpr int kInline = 3;
  int count_ = 0;
  union {
    Ref<Node> few_[kInline];
    Ref<Node>* many_;
  };
};

class Node : public History {
 public:
  Node(const Tensor& result, int operands)
      : inputs(operands), shape(result.shape()), dtype(result.dtype()), device(result.device()) {}

  virtual std::string_view name() const = 0;
  virtual bool is_leaf() const { return false; }
  /// Hands the gradient of each needed input to `pass`.
  virtual void backward(Backward& pass) const = 0;
  /// Drops what was saved for backward.
  virtual void release() = 0;
  virtual bool released() const = 0;

  // Per-sample gradients (squared.h). `g` has the batch on axis 0, and so has the result, for samples
  // [begin, end): (end - begin, *parameter shape). Undefined: this operation has no rule for that input.
  virtual Tensor per_sample(int, const Tensor&, std::int64_t, std::int64_t) const { return {}; }
  /// Adds what `g` contributes to the sum of squares to `carry`; finish() turns the carry into the sum. An
  /// operation without a shortcut returns undefined and is served by per_sample().
  virtual Tensor squared_carry(int, const Tensor&, const Tensor&) const { return {}; }
  virtual Tensor squared_finish(int, const Tensor& carry) const { return carry; }

  NodeInputs inputs;
  Shape shape;  ///< of the output
  DType dtype;
  Device device;
  bool uses_constants = false;  ///< an operand of rank >= 1 carries no history
  bool useful = true;           ///< lies on the way to a tensor that was asked for; valid during a pass
  std::uint32_t output_version = 0;
  std::atomic<std::uint32_t> visit = 0;  ///< the pass that works on it now; 0: none
  std::int32_t pending = 0;              ///< consumers that have not delivered yet
  Tensor incoming;                       ///< sum of what they delivered
  Tensor output;                         ///< without history; kept only where the derivative reads it
};

inline NodeInputs::~NodeInputs() {
  if (count_ > kInline) delete[] many_;
  else if (count_ > 0)
    for (auto& slot : few_) slot.~Ref<Node>();
}

/// A tensor that gathers gradients: a parameter, or an input that asked for them.
class Leaf final : public Node {
 public:
  explicit Leaf(const Tensor& value) : Node(value, 0) {}
  std::string_view name() const override { return label.empty() ? std::string_view("leaf") : label; }
  bool is_leaf() const override { return true; }
  void backward(Backward&) const override {}
  void release() override {}
  bool released() const override { return false; }

  Tensor grad;
  std::string label;                         ///< a parameter's dotted name
  std::atomic_flag busy = ATOMIC_FLAG_INIT;  ///< two backward passes at once into one leaf are an error
};

/// An operand kept for backward, with the version it had. Reading it after an in-place write is an error.
struct Saved {
  Tensor tensor;
  std::uint32_t version = 0;
  std::int32_t input = 0;

  Saved() = default;
  Saved(const Tensor& t, int position) : tensor(t), input(position) {
    if (t.defined()) version = t.impl().storage->version();
  }
  bool defined() const { return tensor.defined(); }
  const Tensor& get(std::string_view op) const {
    check(tensor.impl().storage->version() == version, op, "input ", input, " ", tensor.shape(),
          " was modified in place after it was saved for backward");
    return tensor;
  }
};

/// What a derivative sees: the gradient of its output, and a place to put those of its inputs.
class Backward {
 public:
  Backward(const Node& node, const Tensor& grad, const Tensor& output, Tensor* results);

  const Tensor& grad() const { return grad_; }
  /// The operation's result, for derivatives that asked to keep it.
  const Tensor& output() const;
  /// Shape of input i, which must be one that has a history.
  const Shape& shape(int i) const { return node_.inputs[i]->shape; }
  /// Whether input i asks for a gradient; computing one that is not needed is wasted.
  bool needs(int i) const;
  void give(int i, Tensor gradient);
  /// Of this pass; no two passes share one.
  std::uint32_t number() const { return node_.visit.load(std::memory_order_relaxed); }
  /// What input i has been given so far, where nobody else sees that tensor and no history is wanted: a derivative may
  /// add to it in place instead of giving a tensor. Null otherwise.
  const Tensor* sum_so_far(int i) const;
  /// The same for a leaf: add(its gradient) where backward() has one from before that nobody else sees; false
  /// elsewhere.
  bool add_to_leaf(int i, const std::function<void(const Tensor&)>& add) const;
  /// A saved operand; throws when it was modified in place since.
  const Tensor& get(const Saved& saved) const { return saved.get(node_.name()); }

 private:
  const Node& node_;
  const Tensor& grad_;
  const Tensor& output_;
  Tensor* results_;
};

/// The node of an operation whose derivative is the functor D: D::name, void operator()(Backward&) const, and
/// optionally per_sample (which also gets the parameter's shape), squared_carry, squared_finish as in Node.
template <class D> class OperationNode final : public Node {
 public:
  OperationNode(const Tensor& result, int operands, D derivative)
      : Node(result, operands), derivative_(std::move(derivative)) {}

  std::string_view name() const override { return D::name; }
  void backward(Backward& pass) const override { (*derivative_)(pass); }
  void release() override {
    derivative_.reset();
    output = Tensor();
  }
  bool released() const override { return !derivative_; }
  Tensor per_sample(int i, const Tensor& g, std::int64_t begin, std::int64_t end) const override {
    if constexpr (requires { derivative_->per_sample(i, shape, g, begin, end); })
      return derivative_->per_sample(i, inputs[i]->shape, g, begin, end);
    else return {};
  }
  Tensor squared_carry(int i, const Tensor& g, const Tensor& carry) const override {
    if constexpr (requires { derivative_->squared_carry(i, g, carry); }) return derivative_->squared_carry(i, g, carry);
    else return {};
  }
  Tensor squared_finish(int i, const Tensor& carry) const override {
    if constexpr (requires { derivative_->squared_finish(i, carry); }) return derivative_->squared_finish(i, carry);
    else return carry;
  }

 private:
  std::optional<D> derivative_;
};

/// Whether this is the one handle of its memory, which is contiguous: writing there surprises nobody.
bool owned(const Tensor& t);

/// How many positions each sample of a per-sample gradient g (batch, ..., features) has.
inline std::int64_t positions(const Tensor& g) {
  std::int64_t count = 1;
  for (int i = 1; i + 1 < g.rank(); ++i) grow_count(count, g.shape()[i]);
  return count;
}

inline Node* node_of(const Tensor& t) { return static_cast<Node*>(t.impl().history.get()); }
inline Ref<Node> node_ref(const Tensor& t) { return Ref<Node>(node_of(t)); }
inline bool tracked(const Tensor& t) { return t.defined() && t.requires_grad(); }

/// True when an operation on these operands must be recorded.
inline bool records(std::initializer_list<const Tensor*> operands) {
  if (!grad_enabled()) return false;
  for (const Tensor* t : operands)
    if (tracked(*t)) return true;
  return false;
}

enum class Keep { nothing, output };

void attach(Node& node, const Tensor& y, const Tensor* const* operands, int count, Keep keep);

/// Gives `y` its history when an operand has one: make() builds the derivative. An undefined operand is
/// allowed.
template <class Make>
Tensor record(Tensor y, std::initializer_list<const Tensor*> operands, Make&& make, Keep keep = Keep::nothing) {
  if (!records(operands)) return y;
  using D = decltype(make());
  Ref<Node> node(new OperationNode<D>(y, static_cast<int>(operands.size()), make()));
  attach(*node, y, operands.begin(), static_cast<int>(operands.size()), keep);
  y.impl().history = Ref<History>(std::move(node));
  return y;
}

/// The history of y = act(pre) where a fused kernel computed y in place of `pre`, whose data was never
/// stored.
Tensor record_activation(const Tensor& pre, Tensor y, Activation activation);

}  // namespace stet
