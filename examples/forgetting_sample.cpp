// The sample of "Catastrophic Forgetting in Fine-tuning", line for line: freeze a pre-trained backbone, add a
// head, train the head alone. Run: build/release/examples/forgetting_sample; the last line shows what was
// frozen and what was not.
#include <cstdio>

#include <CLI/CLI.hpp>

#include <stet/stet.h>

#include "checks.h"

using namespace stet;

// Simulate a pre-trained backbone (hidden_size = 128, e.g. a small Transformer encoder)
struct PretrainedBackbone : nn::Module {
  nn::Linear encoder{this, "encoder", 64, 128};
  Tensor operator()(const Tensor& x) const { return encoder(x); }
  struct {
    int hidden_size = 128;
  } config;
};

int main(int count, char** words) try {
  CLI::App app("Freezes a backbone, trains a new head, and shows that the backbone did not change.");
  CLI11_PARSE(app, count, words);
  PretrainedBackbone model;

  // 1. Freeze all pre-trained parameters
  for (nn::Parameter* param : model.parameters()) param->set_trainable(false);

  // 2. Add a trainable classification head (2 output classes)
  const int num_labels = 2;
  nn::Linear classifier{&model, "classifier", model.config.hidden_size, num_labels};

  // 3. Only classifier parameters are updated: the backbone stays frozen
  optim::Adam optimizer(classifier.parameters(), {.lr = 1e-3});
  const nn::State before = model.encoder.state();

  // Synthetic fine-tuning data
  const Tensor X = randn({64, 64}), y = randint({64}, 0, num_labels);
  data::Loader dataloader(64, {.batch_size = 16});

  for (int epoch = 0; epoch < 3; ++epoch) {
    double total = 0;
    while (const auto batch = dataloader.next()) {
      const Tensor rows = tensor(*batch, {std::ssize(*batch)});
      const Tensor data = index_select(X, 0, rows), target = index_select(y, 0, rows);
      optimizer.zero_grad();
      const Tensor features = model(data);  // frozen backbone
      const Tensor loss = nn::cross_entropy(classifier(features), target);
      loss.backward();
      optimizer.step();
      total += loss.item();
    }
    std::printf("epoch %d  loss %.4f\n", epoch + 1, total / static_cast<double>(dataloader.batches()));
  }

  bool unchanged = true;  // to the last bit
  for (const auto& [name, value] : model.encoder.state()) unchanged = unchanged && same(value, before.at(name));
  std::printf("backbone unchanged: %s\n", unchanged ? "yes" : "no");
  std::printf("Frozen params: %s   Trainable params: %s\n", nn::with_commas(model.encoder.count()).c_str(),
              nn::with_commas(classifier.count()).c_str());
  return finished();
} catch (const std::exception& problem) {
  std::fprintf(stderr, "%s\n", problem.what());
  return 2;
}
