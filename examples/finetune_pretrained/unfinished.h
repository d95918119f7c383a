// A run that was stopped, as a file: what training has changed, and where it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <stet/stet.h>

/// What a run goes on with. `run` writes all of it after a measurement, and reads it when it starts again.
struct Progress {
  std::int64_t step = 0;
  stet::GeneratorState windows;                       // which windows come next
  std::vector<double> domain_before, general_before;  // the losses before training
};

class Unfinished {
 public:
  /// `settings`: whatever the run's result depends on.
  Unfinished(std::filesystem::path file, std::string settings)
      : file_(std::move(file)), settings_(std::move(settings)) {}

  bool exists() const { return std::filesystem::exists(file_); }
  /// Trainable parameters, buffers and the optimizer's state, in place of an earlier file's.
  void save(const Progress& progress, const stet::nn::Module& model, const stet::optim::Optimizer& optimizer) const;
  /// An Error where the file is of a run with other settings.
  Progress load(stet::nn::Module& model, stet::optim::Optimizer& optimizer) const;
  void remove() const { std::filesystem::remove(file_); }

 private:
  std::filesystem::path file_;
  std::string settings_;
};
