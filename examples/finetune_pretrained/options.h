// What the command line says, and what speaks against it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <CLI/CLI.hpp>

#include "../model_folder.h"
#include "language_model.h"

inline constexpr std::string_view kProgram = "finetune_pretrained", kRecord = "finetune.json",
                                  kUnfinished = "unfinished.safetensors";

struct Arguments {
  std::string model, text, general, out, method = "lora";
  std::int64_t rank = 8, top = 2, batch = 8, length = 128, steps = 200, windows = 64, measure = 4, stop_after = 0;
  double replay = 0, rate = 0;
  std::uint64_t seed = 1;
  int threads = 0;
  bool merge = false;

  double learning_rate() const { return rate > 0 ? rate : method == "lora" ? 1e-3 : 1e-4; }
  Written written() const { return method == "lora" && !merge ? Written::adapter : Written::model; }
};

void describe(CLI::App& app, Arguments& arguments);
/// An option that would change nothing is a misunderstanding.
void check_use(const CLI::App& app, const Arguments& arguments);
/// Whatever speaks against a run before anything is computed; makes the folder of --out.
void check_paths(const Arguments& arguments);
/// What the result depends on: no run with other settings may be gone on with.
std::string settings_of(const Arguments& arguments, const TokenText& domain, const TokenText& general);
