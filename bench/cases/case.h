// What a benchmark case is. Private to the program `cases`.
#pragma once

#include <functional>
#include <string>

#include <stet/stet.h>

namespace bench {

struct Case {
  std::function<double(std::int64_t)> step;          ///< one unit of work; returns a number to compare (a loss, a sum)
  std::function<double(std::int64_t)> compare = {};  ///< where that number would cost time: what "losses" asks instead
};

/// Case 10 (minilm.cpp): 10a full, 10b LoRA, 10c top layer, 10d head.
Case minilm_case(const std::string& name, const stet::nn::State& file);

/// Cases 9 and 11 to 13.
Case transformer_case(const std::string& name, const stet::nn::State& file);

/// Prints operations and bytes a second of this machine as JSON (limits.cpp).
void print_limits();

}  // namespace bench
