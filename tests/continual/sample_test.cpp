// The source document's sample (examples/forgetting_sample.cpp): the counts, and a backbone whose bits do not
// change.
#include <cstring>

#include <stet/stet.h>

#include "support/catch.h"
#include "support/device.h"

using namespace stet;

namespace {

struct PretrainedBackbone : nn::Module {
  nn::Linear encoder{this, "encoder", 64, 128};
  Tensor operator()(const Tensor& x) const { return encoder(x); }
};

using test::same_bits;

}  // namespace

TEST_CASE("The sample trains the head and leaves every bit of the backbone") {
  PretrainedBackbone model;
  for (nn::Parameter* param : model.parameters()) param->set_trainable(false);
  nn::Linear classifier{&model, "classifier", 128, 2};
  CHECK(classifier.weight.path() == "classifier.weight");
  // Every parameter is handed over, with decay: freezing alone has to hold the backbone.
  optim::Adam optimizer(model.parameters(), {.lr = 1e-2, .weight_decay = 0.1});
  const nn::State before = model.state();
  Generator generator(1);
  const Tensor X = randn({64, 64}, generator), y = randint({64}, 0, 2, generator);
  data::Loader dataloader(64, {.batch_size = 16});
  double first = 0, last = 0;
  for (int epoch = 0; epoch < 10; ++epoch) {
    last = 0;
    while (const auto batch = dataloader.next()) {
      const Tensor rows = tensor(*batch, {std::ssize(*batch)});
      optimizer.zero_grad();
      const Tensor loss = nn::cross_entropy(classifier(model(index_select(X, 0, rows))), index_select(y, 0, rows));
      loss.backward();
      optimizer.step();
      last += loss.item();
    }
    if (epoch == 0) first = last;
  }
  CHECK(last < first);
  const nn::State after = model.state();
  CHECK(same_bits(after.at("encoder.weight"), before.at("encoder.weight")));
  CHECK(same_bits(after.at("encoder.bias"), before.at("encoder.bias")));
  CHECK_FALSE(same_bits(after.at("classifier.weight"), before.at("classifier.weight")));
  CHECK_FALSE(same_bits(after.at("classifier.bias"), before.at("classifier.bias")));
  CHECK(model.encoder.count() == 8320);
  CHECK(classifier.count() == 258);
  CHECK(model.count_trainable() == 258);
  CHECK_THAT(nn::summary(model), Catch::Matchers::Contains("Frozen params: 8,320   Trainable params: 258\n"));
}
