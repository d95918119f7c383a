// Backward and grad: one pass over the graph, without recursion, from a result to the leaves. Passes on several threads
// may meet in leaves, but not in an operation: the later one is refused there, before it has delivered anything.
#pragma once

#include <utility>
#include <vector>

#include <stet/autograd/node.h>

namespace stet {

/// Accumulates d(loss)/d(leaf) into every leaf's grad. `seed` has the loss's shape; undefined means 1, for a
/// one-element loss. The graph's saved tensors are freed unless it is retained.
void backward(const Tensor& loss, const Tensor& seed = {}, bool retain_graph = false);

struct GradOptions {
  Tensor seed = {};           ///< as in backward()
  bool create_graph = false;  ///< the gradients can be differentiated again; implies retain_graph
  bool retain_graph = false;
  bool allow_unused = false;  ///< a tensor that the loss does not depend on gets an undefined gradient
};

/// Gradients of `loss` with respect to `tensors`, leaves or not. Touches no tensor's grad.
std::vector<Tensor> grad(const Tensor& loss, const std::vector<Tensor>& tensors, const GradOptions& options = {});

/// During a pass: whether this leaf's gradient is wanted. Everywhere in backward(), where asked for in
/// grad().
bool leaf_is_wanted(const Node& leaf);
/// During a pass: add(the gradient that the leaf has), where the pass sums into it and it is owned().
bool add_to_gradient(Leaf& leaf, const std::function<void(const Tensor&)>& add);

/// The engine itself, for passes that treat leaves in their own way (squared.h).
class Pass {
 public:
  /// Called with the node, the input's position and the gradient for it, whenever the input is a leaf.
  virtual void deliver(Leaf& leaf, const Node& node, int input, Tensor gradient) = 0;
  /// Called before a node's derivative with the node's whole gradient.
  virtual void reached(Node&, const Tensor&) {}
  virtual bool wants(const Node& leaf) const = 0;
  /// Whether add(leaf's gradient) was called instead of a delivery.
  virtual bool add_to(Leaf&, const std::function<void(const Tensor&)>&) { return false; }

  bool create_graph = false, retain_graph = false;
  bool leaf_gradients = true;  ///< false: derivatives are not asked for the leaves' gradients
  /// Only nodes on the way to one of these are worked on; empty means all leaves count.
  std::vector<Node*> targets;

  void run(const std::vector<std::pair<Tensor, Tensor>>& roots_and_seeds);

 protected:
  ~Pass() = default;

 private:
  void visit(Node* root);
  void mark_useful();
  void process(Node* node, std::vector<Node*>& ready);
  std::vector<Node*> order_;  // children after parents' first visit; post-order when targets are given
  std::uint32_t id_ = 0;
};

/// Drops what the graph behind `loss` saved for backward. An Error where a pass is at work in it.
void release_graph(const Tensor& loss);

/// Checks that a loss can be differentiated and completes its seed.
Tensor complete_seed(std::string_view op, const Tensor& loss, const Tensor& seed);

}  // namespace stet
