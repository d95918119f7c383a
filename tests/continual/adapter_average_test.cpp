// Adapters averaged: the weighted sum of those that compute the same, and what is refused.
#include <limits>

#include "support/adapter_samples.h"
#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;
using test::dora;
using test::kLora;
using test::LlamaCase;
using test::message_of;
using test::same_bits;
using test::shake;

TEST_CASE("adapters can be averaged", "[adapters]") {
  LlamaCase llama;
  Adapters adapters(llama.model);
  adapters.attach("a", kLora);
  adapters.attach("b", kLora);
  shake(adapters.parameters("a"));
  shake(adapters.parameters("b"));
  const Tensor with_b = llama();
  adapters.average("mean", {{"a", 0.25}, {"b", 0.75}});
  CHECK(adapters.active() == "b");
  CHECK(same_bits(llama(), with_b));
  const auto a = adapters.parameters("a"), b = adapters.parameters("b"), mean = adapters.parameters("mean");
  for (std::size_t i = 0; i < mean.size(); ++i)
    CHECK(same_bits(mean[i]->value(), a[i]->value() * 0.25 + b[i]->value() * 0.75));
  adapters.average("copy", {{"b", 1}});
  adapters.activate("copy");
  CHECK(same_bits(llama(), with_b));
  adapters.attach("other", dora());
  CHECK_THROWS_WITH(adapters.average("bad", {{"a", 1}, {"other", 1}}),
                    Contains("'a' and 'other' are of different kinds"));
}
