// Graphviz source of a graph; walks it without recursion.
#include <stet/autograd/dot.h>

#include <sstream>
#include <unordered_map>
#include <vector>

#include <stet/autograd/node.h>

namespace stet {

std::string graph_to_dot(const Tensor& result) {
  std::ostringstream out;
  out << "digraph stet {\n  rankdir=BT;\n  node [fontname=\"sans-serif\"];\n";
  std::unordered_map<const Node*, int> ids;
  std::vector<const Node*> stack;
  const auto id = [&](const Node* node) {
    const auto [it, fresh] = ids.try_emplace(node, static_cast<int>(ids.size()));
    if (fresh) {
      stack.push_back(node);
      out << "  n" << it->second << " [label=\"" << node->name() << "\\n"
          << node->dtype << ' ' << node->shape
          << "\", shape=" << (node->is_leaf() ? "ellipse, style=filled, fillcolor=lightblue" : "box") << "];\n";
    }
    return it->second;
  };
  if (result.requires_grad()) id(node_of(result));
  while (!stack.empty()) {
    const Node* node = stack.back();
    stack.pop_back();
    const int to = id(node);
    for (int i = 0; i < node->inputs.size(); ++i)
      if (const Node* input = node->inputs[i].get()) {
        const int from = id(input);
        out << "  n" << from << " -> n" << to << " [label=\"" << i << "\"];\n";
      }
  }
  out << "}\n";
  return out.str();
}

}  // namespace stet
