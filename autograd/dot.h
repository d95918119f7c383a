// A picture of the graph behind a tensor, for those who study it.
#pragma once

#include <string>

#include <stet/tensor/tensor.h>

namespace stet {

/// Graphviz source: operations as boxes, leaves as ellipses with their names, edges along the gradient's way
/// back. `dot -Tsvg` draws it.
std::string graph_to_dot(const Tensor& result);

}  // namespace stet
