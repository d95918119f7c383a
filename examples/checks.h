// What a number on the command line may be. Private to the examples. CLI11's own checks let NaN through, and print
// their upper end, the largest double, with all its digits.
#pragma once

#include <cmath>
#include <sstream>
#include <string>

#include <CLI/CLI.hpp>

inline CLI::Validator at_least(double least) {
  const auto problem = [least](std::string& text) -> std::string {
    double value = 0;
    if (CLI::detail::lexical_cast(text, value) && std::isfinite(value) && value >= least) return "";
    std::ostringstream out;
    out << "found " << text << ", expected a finite number, " << least << " or more";
    return out.str();
  };
  return CLI::Validator(problem, least > 0 ? "POSITIVE" : "NONNEGATIVE");
}
