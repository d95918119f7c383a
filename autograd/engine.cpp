// The engine: count the consumers of every node, then work each one off when all of them have delivered.
#include <stet/autograd/engine.h>

#include <algorithm>
#include <atomic>

#include <stet/autograd/ops.h>
#include <stet/tensor/error.h>

namespace stet {
namespace {

std::atomic<std::uint32_t> pass_counter{0};
thread_local Pass* current_pass = nullptr;

struct CurrentPass {
  Pass* before = current_pass;
  explicit CurrentPass(Pass* pass) { current_pass = pass; }
  ~CurrentPass() { current_pass = before; }
};

constexpr int kInlineResults = 4;

/// A gradient for the caller: nobody else sees its memory, where its elements stand in row-major order.
Tensor unshared(const Tensor& gradient) { return owned(gradient) ? gradient : gradient.clone(); }

/// backward(): leaves sum into their own grad.
class Accumulate final : public Pass {
 public:
  void deliver(Leaf& leaf, const Node&, int, Tensor gradient) override {
    const Alone alone(leaf);
    leaf.grad = leaf.grad.defined() ? leaf.grad + gradient : unshared(gradient);
  }
  bool wants(const Node&) const override { return true; }
  bool add_to(Leaf& leaf, const std::function<void(const Tensor&)>& add) override {
    const Alone alone(leaf);
    if (!owned(leaf.grad)) return false;
    add(leaf.grad);
    return true;
  }

 private:
  struct Alone {
    explicit Alone(Leaf& leaf) : flag(leaf.busy) {
      check(!flag.test_and_set(std::memory_order_acquire), "backward", "two threads write the gradient of leaf '",
            leaf.name(), "' ", leaf.shape, " at once");
    }
    ~Alone() { flag.clear(std::memory_order_release); }
    std::atomic_flag& flag;
  };
};

/// grad(): the wanted gradients are collected here; leaves stay as they are.
class Collect final : public Pass {
 public:
  explicit Collect(const std::vector<Tensor>& tensors) {
    for (const Tensor& t : tensors) targets.push_back(node_of(t));
    sorted_ = targets;
    std::sort(sorted_.begin(), sorted_.end());
    results.resize(targets.size());
  }
  void deliver(Leaf& leaf, const Node&, int, Tensor gradient) override { add(&leaf, gradient); }
  void reached(Node& node, const Tensor& gradient) override {
    if (wants(node)) add(&node, gradient);
  }
  bool wants(const Node& node) const override {
    return std::binary_search(sorted_.begin(), sorted_.end(), const_cast<Node*>(&node));
  }
  std::vector<Tensor> results;

 private:
  void add(Node* node, const Tensor& gradient) {
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (targets[i] == node) results[i] = results[i].defined() ? results[i] + gradient : gradient;
  }
  std::vector<Node*> sorted_;
};

/// A number of its own for a pass, never 0.
std::uint32_t next_pass() {
  std::uint32_t id = 0;
  while (id == 0) id = pass_counter.fetch_add(1, std::memory_order_relaxed) + 1;
  return id;
}

/// Takes a node for a pass, which alone reads and writes what a node holds of a pass, until it lets go. False where
/// another pass has it.
bool claim(Node& node, std::uint32_t id) {
  std::uint32_t free = 0;
  return node.visit.compare_exchange_strong(free, id, std::memory_order_acquire, std::memory_order_relaxed);
}
[[noreturn]] void fail_claimed(const Node& node) {
  fail("backward", "two passes at once in one graph meet at '", node.name(), "' ", node.shape,
       ": expected one after the other");
}
bool visited(const Node& node, std::uint32_t id) { return node.visit.load(std::memory_order_relaxed) == id; }
void let_go(Node& node) { node.visit.store(0, std::memory_order_release); }

/// The way to the node that a search is at, each node with its next input. What is left on it by an error is let go.
struct Path {
  std::vector<std::pair<Node*, int>> nodes;
  ~Path() {
    for (const auto& [node, next] : nodes) let_go(*node);
  }
};

/// Passes gradients back to a clean state even when a derivative throws.
struct Cleanup {
  std::vector<Node*>& nodes;
  ~Cleanup() {
    for (Node* node : nodes) {
      node->incoming = Tensor();
      node->useful = true;
      let_go(*node);
    }
  }
};

}  // namespace

bool leaf_is_wanted(const Node& leaf) {
  return !current_pass || (current_pass->leaf_gradients && current_pass->wants(leaf));
}

bool add_to_gradient(Leaf& leaf, const std::function<void(const Tensor&)>& add) {
  return current_pass && current_pass->wants(leaf) && current_pass->add_to(leaf, add);
}

/// Iterative depth-first search; order_ receives the nodes in post-order.
void Pass::visit(Node* root) {
  if (visited(*root, id_)) return;
  Path path;
  auto& stack = path.nodes;
  const auto enter = [&](Node* node) {
    stack.emplace_back(node, 0);
    if (!claim(*node, id_)) {
      stack.pop_back();  // not ours to let go
      fail_claimed(*node);
    }
    check(!node->released(), "backward", "the graph of '", node->name(), "' ", node->shape,
          " was freed by an earlier backward: retain it there");
    node->pending = 0;
  };
  enter(root);
  while (!stack.empty()) {
    auto& [node, next] = stack.back();
    if (next == node->inputs.size()) {
      order_.push_back(node);
      stack.pop_back();
      continue;
    }
    Node* input = node->inputs[next++].get();
    if (!input || input->is_leaf()) continue;
    if (!visited(*input, id_)) enter(input);  // invalidates `node` and `next`
    ++input->pending;
  }
}

void Pass::mark_useful() {
  const auto is_target = [&](const Node* node) { return wants(*node); };
  for (Node* node : order_) {
    node->useful = is_target(node);
    for (int i = 0; !node->useful && i < node->inputs.size(); ++i) {
      const Node* input = node->inputs[i].get();
      node->useful = input && (input->is_leaf() ? is_target(input) : input->useful);
    }
  }
}

void Pass::process(Node* node, std::vector<Node*>& ready) {
  const Tensor gradient = std::move(node->incoming);
  node->incoming = Tensor();
  const int count = node->inputs.size();
  Tensor few[kInlineResults];
  std::vector<Tensor> many(count > kInlineResults ? static_cast<std::size_t>(count) : 0);
  Tensor* results = count > kInlineResults ? many.data() : few;
  if (gradient.defined() && node->useful) {
    reached(*node, gradient);
    Tensor output = node->output;
    if (output.defined()) {
      check(output.impl().storage->version() == node->output_version, node->name(), "its result ", node->shape,
            " was modified in place after it was saved for backward");
      if (create_graph) {  // differentiable again: the output is this node's
        output = output.detach();
        output.impl().history = Ref<History>(node);
      }
    }
    Backward context(*node, gradient, output, results);
    node->backward(context);
  }
  for (int i = 0; i < count; ++i) {
    Node* input = node->inputs[i].get();
    if (!input) continue;
    if (input->is_leaf()) {
      if (results[i].defined() && wants(*input)) deliver(static_cast<Leaf&>(*input), *node, i, std::move(results[i]));
      continue;
    }
    if (results[i].defined())
      input->incoming = input->incoming.defined() ? input->incoming + results[i] : std::move(results[i]);
    if (--input->pending == 0) ready.push_back(input);
  }
  if (!retain_graph && !create_graph) node->release();
}

void Pass::run(const std::vector<std::pair<Tensor, Tensor>>& roots_and_seeds) {
  const CurrentPass scope(this);
  const GradMode mode(create_graph);
  id_ = next_pass();
  order_.clear();
  const Cleanup cleanup{order_};
  for (const auto& [root, seed] : roots_and_seeds)
    if (!node_of(root)->is_leaf()) visit(node_of(root));
  if (!targets.empty()) mark_useful();
  std::vector<Node*> ready;
  for (const auto& [root, seed] : roots_and_seeds) {
    Node* node = node_of(root);
    if (node->is_leaf()) {
      if (wants(*node)) deliver(static_cast<Leaf&>(*node), *node, 0, seed);
      continue;
    }
    const bool first = !node->incoming.defined();
    node->incoming = first ? seed : node->incoming + seed;
    if (first && node->pending == 0) ready.push_back(node);
  }
  while (!ready.empty()) {
    Node* node = ready.back();
    ready.pop_back();
    process(node, ready);
  }
}

void release_graph(const Tensor& loss) {
  const std::uint32_t id = next_pass();
  std::vector<Node*> nodes;
  const Cleanup cleanup{nodes};
  const auto enter = [&](Node* node) {
    if (!node || node->is_leaf() || visited(*node, id)) return;
    nodes.push_back(node);
    if (claim(*node, id)) return;
    nodes.pop_back();  // not ours to let go
    fail_claimed(*node);
  };
  enter(node_of(loss));
  for (std::size_t k = 0; k < nodes.size(); ++k)
    for (int i = 0; i < nodes[k]->inputs.size(); ++i) enter(nodes[k]->inputs[i].get());
  for (Node* node : nodes) node->release();
}

Tensor complete_seed(std::string_view op, const Tensor& loss, const Tensor& seed) {
  check(tracked(loss), op, "the loss ", loss.shape(), " does not depend on any tensor that asks for gradients");
  if (!seed.defined()) {
    check(loss.numel() == 1, op, "needs a one-element loss or an explicit seed, got shape ", loss.shape());
    return full(loss.shape(), 1, loss.options());
  }
  check(seed.shape() == loss.shape() && seed.dtype() == loss.dtype(), op, "seed ", seed.dtype(), " ", seed.shape(),
        " for a loss ", loss.dtype(), " ", loss.shape());
  return seed;
}

void backward(const Tensor& loss, const Tensor& seed, bool retain_graph) {
  Accumulate pass;
  pass.retain_graph = retain_graph;
  pass.run({{loss, complete_seed("backward", loss, seed)}});
}

std::vector<Tensor> grad(const Tensor& loss, const std::vector<Tensor>& tensors, const GradOptions& options) {
  const Tensor seed = complete_seed("grad", loss, options.seed);
  for (std::size_t i = 0; i < tensors.size(); ++i)
    check(tracked(tensors[i]), "grad", "tensor ", i, " ", tensors[i].shape(), " does not ask for gradients");
  Collect pass(tensors);
  pass.create_graph = options.create_graph;
  pass.retain_graph = options.retain_graph;
  if (tensors.empty()) return {};
  pass.run({{loss, seed}});
  for (std::size_t i = 0; i < tensors.size(); ++i)
    check(pass.results[i].defined() || options.allow_unused, "grad", "the loss does not depend on tensor ", i, " ",
          tensors[i].shape(), ": pass allow_unused to get an undefined gradient");
  for (Tensor& result : pass.results)
    if (result.defined() && !options.create_graph) result = unshared(result);
  return std::move(pass.results);
}

}  // namespace stet
