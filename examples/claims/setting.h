// What the programs about claims share: arguments, a small GPT pretrained on one text, progress, tables, verdicts.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "../finetune_domain/table.h"
#include "../finetune_domain/training.h"

struct Arguments {
  std::string text, cache, data = "fashion-mnist";
  int seeds = 3, pretrain = 1500, steps = 200, threads = 0;
  bool quick = false;  ///< a smaller model and few steps: shows that it runs, not what it shows
};

/// The whole main(): reads the command line, runs the claim, turns an exception into a message and exit code 2.
/// `texts`: the program reads texts and pretrains on one of them; otherwise it has images.
int run_claim(int count, char** words, const std::string& about, bool texts,
              const std::function<void(const Arguments&)>& claim);

/// Byte-level GPT-2: 4 blocks of width 96 with 4 heads, context kLength; 3 blocks of width 32 where it has to be quick.
stet::nn::Gpt2Config small_gpt(const Arguments& arguments);
/// Starts the model from `seed` and trains it on the general text at 3e-3; with --cache the result is kept in a file
/// named after the model, text, seed and steps, and read from there the next time.
void pretrain(stet::nn::Gpt2& model, const stet::data::Text& text, const Arguments& arguments, std::uint64_t seed,
              const std::function<void()>& report);

class StepCounter;
/// For seeds 1 to N: makes and pretrains a model, and hands it over.
void each_pretrained(const Arguments& arguments, const stet::data::Text& text, StepCounter& counter,
                     const std::function<void(stet::nn::Gpt2& model, std::uint64_t seed)>& then);

/// Fine-tunes a pretrained model under a method, with its adapter if it has one; measures it before the adapter goes.
Losses fine_tune(stet::nn::Gpt2& model, const Method& method, const Corpora& texts, const Arguments& arguments,
                 std::uint64_t seed, const stet::nn::State& fisher, const std::function<void()>& report);

/// What a method learned of the domain (fall of its loss) and forgot (rise of the general loss), of each seed.
struct Outcome {
  Method method;
  std::vector<double> learned, forgotten;
};
struct Comparison {
  std::vector<double> general, domain;  ///< losses before, of each seed
  std::vector<Outcome> outcomes;
};
/// Pretrains, then fine-tunes once for each method from the same model.
Comparison compare_methods(const Arguments& arguments, const Corpora& texts, const std::vector<Method>& methods);

/// Counts the steps of a whole program on the progress line.
class StepCounter {
 public:
  explicit StepCounter(double all) : all_(all) {}
  /// A function that counts one step of `what`.
  std::function<void()> of(std::string what);

 private:
  stet::continual::ProgressLine line_;
  double all_, done_ = 0;
};

/// The values' differences, seed by seed.
std::vector<double> minus(const std::vector<double>& a, const std::vector<double>& b);
/// Whether the mean lies above 0 by more than its deviation over the seeds, of which one has none.
bool clearly_positive(const std::vector<double>& values);
/// Whether something can be concluded; says so where it cannot.
bool enough_seeds(const Arguments& arguments);
