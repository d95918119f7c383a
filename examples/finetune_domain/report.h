// What finetune_domain found, as a table, a comparison, JSON and pictures. Private to finetune_domain.
#pragma once

#include <filesystem>

#include "training.h"

struct Outcome {
  Losses after;
  std::vector<Losses> during = {};  ///< after a quarter, half and three quarters of the steps
};

struct Experiment {
  std::vector<Method> methods;
  std::vector<Losses> pretrained;             ///< of each seed
  std::vector<std::vector<Outcome>> results;  ///< [method][seed]
};

struct Names {
  std::string general, domain;
  std::vector<std::string> others;
};

void print_report(const Names& names, const Experiment& experiment);

/// Who forgets least where all have learned the same: 0.8 times what the method numbered `plain` learns.
void conclude(const Experiment& experiment, std::size_t plain);

/// A row for each method, strength, seed and part of the steps; at the end ("part": 1) with "others", the losses on the
/// texts of these names. What is not finite is null.
void write_json(const std::filesystem::path& path, const Names& names, int pretraining, int steps,
                const Experiment& experiment);

/// finetune_domain.svg: each method over its strength; finetune_domain_during.svg: one strength of each, over the
/// steps.
void write_pictures(const std::filesystem::path& folder, const Names& names, const Experiment& experiment);
