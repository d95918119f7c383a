// What a run says: before it starts, at its end, and in its record.
#pragma once

#include <string>
#include <vector>

#include "options.h"

/// Nats a token of each held-out window.
struct Result {
  std::vector<double> domain_before, general_before, domain_after, general_after;
};

void print_sizes(const Arguments& arguments, const TokenText& domain, const TokenText& general);
void print(const Arguments& arguments, const Result& result);
/// Settings and losses as JSON.
std::string record_of(const Arguments& arguments, const Result& result);
