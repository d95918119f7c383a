// What a number on the command line may be, and how a program begins and ends. Private to the examples. CLI11's own
// checks let NaN through, and print their upper end, the largest double, with all its digits.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <sstream>
#include <string>

#include <CLI/CLI.hpp>

/// A program's last word: 0, or 2 where its output could not be written, to a full disk say.
inline int finished() {
  std::cout.flush();
  if (std::cout && std::fflush(stdout) == 0 && !std::ferror(stdout)) return 0;
  std::cerr << "what was printed could not all be written\n";
  return 2;
}

/// Reads the command line and acts on it: 0, or 2 and on stderr what speaks against it.
template <class Action> int program(CLI::App& app, int count, char** words, const Action& action) {
  CLI11_PARSE(app, count, words);
  try {
    action();
    return finished();
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 2;
  }
}

/// What a seed can be: CLI11 alone takes -3 for 2^64 - 3.
inline CLI::Validator whole_number() {
  const auto problem = [](std::string& text) -> std::string {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size()) return "";
    return "found " + text + ", expected a whole number from 0 to 18446744073709551615";
  };
  return CLI::Validator(problem, "NONNEGATIVE");
}

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
