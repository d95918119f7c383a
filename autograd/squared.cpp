// Backward with squares: activations get ordinary gradients, parameters get squared ones.
#include <stet/autograd/squared.h>

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include <stet/autograd/ops.h>
#include <stet/tensor/elementwise.h>
#include <stet/tensor/error.h>

namespace stet {
namespace {

constexpr std::string_view kOp = "squared_gradients";
constexpr std::int64_t kChunkElements = std::int64_t{1} << 22;  // of per-sample gradients held at a time

/// One place where a parameter enters the computation.
struct Use {
  const Node* node;
  int input;
  friend bool operator<(const Use& a, const Use& b) {
    return a.node != b.node ? std::less<const Node*>()(a.node, b.node) : a.input < b.input;
  }
};

template <class... Ops> bool is_one_of(TypeList<Ops...>, std::string_view name) { return ((Ops::name == name) || ...); }

/// Where another axis is as long as axis 0: the derivatives of permute and sum are views of the result's gradient,
/// whose strides say which axis each was. The view is looked at and never read.
bool comes_back(const Node& node) {
  if (node.released()) return false;
  const Tensor g = make_view(zeros({1}, {node.dtype, node.device}), node.shape, row_major(node.shape), 0);
  Tensor back;
  Backward pass(node, g, g, &back);
  node.backward(pass);
  return back.defined() && back.strides()[0] == g.strides()[0];
}

/// Whether axis 0 of an input is sure to be axis 0 of the result, and not that of a weight which happens to have the
/// batch's size. No is always safe: SquaredPass::probe() then looks.
bool keeps_axis_0(const Node& node, int input) {
  const Shape &from = node.inputs[input]->shape, &to = node.shape;
  if (from.size() == 0 || to.size() == 0 || from[0] != to[0]) return false;
  const std::string_view name = node.name();
  const auto any = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const bool as_long = from.size() == to.size();
  if (is_one_of(UnaryOps{}, name) || is_one_of(BinaryOps{}, name) || name == "where") return as_long;
  if (name == "matmul") return as_long && (input == 0 || from.size() > 2);
  if (name == "attention") return input < 3;
  const bool alone = std::count(from.begin(), from.end(), from[0]) == 1;  // no other axis can pose as it
  if (any({"permute", "sum"})) return alone || comes_back(node);
  return input == 0 && any({"linear", "layer_norm", "rms_norm", "cross_entropy", "softmax", "log_softmax", "rotary",
                            "reshape", "slice", "split", "piece", "cast", "to"});
}

/// Counts the uses of each parameter and knows which nodes depend on the batch.
class Survey {
 public:
  explicit Survey(Node* root) {
    walk(root);
    spread_doubt();
  }
  int uses(const Node* leaf) const {
    const auto it = uses_.find(leaf);
    return it == uses_.end() ? 0 : it->second;
  }
  bool depends_on_batch(const Node* node) const { return batch_.at(node); }
  /// Whether the parameter enters a result whose axis 0 may be another than that of the outputs.
  bool doubtful(const Node* node) const { return doubtful_.contains(node); }

 private:
  void walk(Node* root) {
    std::vector<std::pair<Node*, int>> stack{{root, 0}};
    batch_[root] = root->uses_constants;
    while (!stack.empty()) {
      auto& [node, next] = stack.back();
      if (next == node->inputs.size()) {
        const bool batch = batch_[node];
        stack.pop_back();
        if (!stack.empty() && batch) batch_[stack.back().first] = true;
        continue;
      }
      Node* input = node->inputs[next++].get();
      if (!input) continue;
      if (input->is_leaf()) {
        ++uses_[input];
        continue;
      }
      if (!keeps_axis_0(*node, next - 1)) doubtful_.insert(input);
      if (const auto seen = batch_.find(input); seen != batch_.end()) {
        if (seen->second) batch_[node] = true;
        continue;
      }
      batch_[input] = input->uses_constants;
      stack.emplace_back(input, 0);
    }
  }
  void spread_doubt() {
    std::vector<const Node*> open(doubtful_.begin(), doubtful_.end());
    while (!open.empty()) {
      const Node* node = open.back();
      open.pop_back();
      for (int i = 0; i < node->inputs.size(); ++i)
        if (const Node* input = node->inputs[i].get(); input && doubtful_.insert(input).second) open.push_back(input);
    }
  }
  std::unordered_map<const Node*, int> uses_;
  std::unordered_set<const Node*> doubtful_;
  std::unordered_map<const Node*, bool> batch_;
};

class SquaredPass final : public Pass {
 public:
  SquaredPass(const Survey& survey, std::int64_t batch, const std::vector<Tensor>& parameters)
      : survey_(survey), batch_(batch) {
    for (const Tensor& p : parameters) targets.push_back(node_of(p));
    sorted_ = targets;
    std::sort(sorted_.begin(), sorted_.end());
    sums_.resize(targets.size());
  }

  bool wants(const Node& leaf) const override {
    return std::binary_search(sorted_.begin(), sorted_.end(), const_cast<Node*>(&leaf));
  }
  // The ordinary gradient of a parameter is never computed: needs() says no for leaves (see leaf_gradients).
  void deliver(Leaf&, const Node&, int, Tensor) override {}

  void reached(Node& node, const Tensor& g) override {
    for (int i = 0; i < node.inputs.size(); ++i) {
      Node* leaf = node.inputs[i].get();
      if (leaf && leaf->is_leaf() && wants(*leaf)) consume(node, i, leaf, g);
    }
  }

  /// Where the graph does not tell whether axis 0 is the batch, a few more passes do: seeds of some samples must leave
  /// the rows of the others at 0. The binary digits of their positions part any two samples, both ways.
  void probe(const Tensor& outputs) {
    if (std::none_of(targets.begin(), targets.end(), [&](const Node* t) { return survey_.doubtful(t); })) return;
    Generator generator(1);
    const Tensor seed = uniform(outputs.shape(), 1, 2, generator, outputs.options());  // no numbers that cancel
    for (std::int64_t digit = 1; digit < batch_; digit *= 2)
      for (const bool set : {false, true}) {
        std::vector<std::int64_t> seeded;
        for (std::int64_t b = 0; b < batch_; ++b) seeded.push_back(((b & digit) != 0) == set);
        seeded_ = to(tensor(seeded), outputs.device()) > 0.0;
        run({{outputs, rows(seed, true)}});
      }
    seeded_ = Tensor();
  }

  /// Squares what shared parameters gathered in this pass.
  void end_of_seed() {
    for (auto& [leaf, entries] : shared_) add(leaf, chunked(entries));
    shared_.clear();
  }

  std::vector<Tensor> finish() {
    for (auto& [use, carry] : carries_) {
      Node* leaf = use.node->inputs[use.input].get();
      add(leaf, reshape(use.node->squared_finish(use.input, carry), leaf->shape));
    }
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (!sums_[i].defined()) sums_[i] = zeros(targets[i]->shape, {targets[i]->dtype, targets[i]->device});
    return std::move(sums_);
  }

 private:
  struct Entry {
    Use use;
    Tensor gradient;
  };

  /// The rows of samples that are seeded, or those that are not; 0 in place of the others.
  Tensor rows(const Tensor& x, bool seeded) const {
    Shape column(x.rank(), 1);
    column[0] = batch_;
    const Tensor here = reshape(seeded_, column), none = zeros({}, x.options());
    return seeded ? where(here, x, none) : where(here, none, x);
  }

  void consume(Node& node, int input, Node* leaf, const Tensor& g) {
    check(g.rank() >= 1 && g.shape()[0] == batch_ && survey_.depends_on_batch(&node), kOp, "operation '", node.name(),
          "' consumes parameter '", leaf->name(), "' ", leaf->shape, " in a result ", g.shape(),
          ": expected the batch of ", batch_, " on axis 0");
    if (seeded_.defined()) {
      check(g.numel() == 0 || !(max(abs(rows(g, false))).item() > 0), kOp, "operation '", node.name(),
            "' consumes parameter '", leaf->name(), "' ", leaf->shape, " in a result ", g.shape(),
            " whose rows reach the outputs of other samples", ": expected the batch of ", batch_, " on axis 0");
      return;
    }
    if (survey_.uses(leaf) > 1) {
      shared_[leaf].push_back({{&node, input}, g});
      return;
    }
    const auto it = carries_.find({&node, input});
    const Tensor carry = node.squared_carry(input, g, it == carries_.end() ? Tensor() : it->second);
    if (carry.defined()) carries_.insert_or_assign({&node, input}, carry);
    else add(leaf, chunked({{{&node, input}, g}}));
  }

  /// Sum over samples of the squared sum over uses, some samples at a time.
  Tensor chunked(const std::vector<Entry>& entries) const {
    const Node* leaf = entries.front().use.node->inputs[entries.front().use.input].get();
    const std::int64_t size = std::max<std::int64_t>(count_elements(kOp, leaf->shape), 1);
    const std::int64_t chunk = std::max<std::int64_t>(kChunkElements / size, 1);
    Tensor total;
    for (std::int64_t begin = 0; begin < batch_; begin += chunk) {
      const std::int64_t end = std::min(batch_, begin + chunk);
      Tensor joined;
      for (const Entry& e : entries) {
        const Tensor part = e.use.node->per_sample(e.use.input, e.gradient, begin, end);
        check(part.defined(), kOp, "operation '", e.use.node->name(), "' consumes parameter '", leaf->name(), "' ",
              leaf->shape, " and has no per-sample rule for it");
        joined = joined.defined() ? joined + part : part;
      }
      const Tensor squares = sum(square(joined), {0});
      total = total.defined() ? total + squares : squares;
    }
    return total;
  }

  void add(const Node* leaf, const Tensor& squares) {
    for (std::size_t i = 0; i < targets.size(); ++i)
      if (targets[i] == leaf) sums_[i] = sums_[i].defined() ? sums_[i] + squares : squares;
  }

  const Survey& survey_;
  std::int64_t batch_;
  Tensor seeded_;  // while probing: (batch,) bool
  std::vector<Node*> sorted_;
  std::vector<Tensor> sums_;
  std::map<Use, Tensor> carries_;
  std::map<Node*, std::vector<Entry>> shared_;
};

}  // namespace

std::vector<Tensor> squared_gradients(const Tensor& outputs, const std::vector<Tensor>& seeds,
                                      const std::vector<Tensor>& parameters, bool retain_graph) {
  const NoGrad no_grad;
  check(outputs.rank() >= 1, kOp, "outputs ", outputs.shape(), ": expected the batch on axis 0");
  check(!seeds.empty(), kOp, "needs at least one seed");
  check(tracked(outputs) && !node_of(outputs)->is_leaf(), kOp, "the outputs ", outputs.shape(),
        " were not computed from any parameter");
  for (std::size_t i = 0; i < parameters.size(); ++i)
    check(tracked(parameters[i]) && parameters[i].is_leaf(), kOp, "parameter ", i, " ", parameters[i].shape(),
          " is not a leaf that asks for gradients");
  if (parameters.empty()) return {};
  const Survey survey(node_of(outputs));
  SquaredPass pass(survey, outputs.shape()[0], parameters);
  pass.retain_graph = true;  // the rules read what was saved until the end
  pass.leaf_gradients = false;
  pass.probe(outputs);
  for (const Tensor& seed : seeds) {
    pass.run({{outputs, complete_seed(kOp, outputs, seed)}});
    pass.end_of_seed();
  }
  std::vector<Tensor> sums = pass.finish();
  if (!retain_graph) release_graph(outputs);
  return sums;
}

std::vector<Tensor> squared_gradients(const Tensor& losses, const std::vector<Tensor>& parameters, bool retain_graph) {
  check(losses.rank() == 1, kOp, "losses ", losses.shape(), ": expected one unreduced loss a sample, (batch,)");
  return squared_gradients(losses, std::vector<Tensor>{ones(losses.shape(), losses.options())}, parameters,
                           retain_graph);
}

}  // namespace stet
