// The cache of a frozen prefix: once for each example, and never after any kind of write.
#include <stet/continual/adapters/adapters.h>
#include <stet/continual/feature_cache.h>
#include <stet/nn/losses.h>
#include <stet/nn/models/llama.h>
#include <stet/optim/optimizers.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/message.h"
#include "support/samples.h"

using namespace stet;
using namespace stet::continual;
using Catch::Matchers::Contains;
using test::message_of;
using test::same_bits;

namespace {

struct Case {
  nn::Mlp model{{4, 6, 5}};
  nn::Module extra{&model, "extra"};
  nn::Buffer shift{&extra, "shift", zeros({5})};
  Tensor pool = test::spread({10, 4}, -1, 1, 1, f32);
  FeatureCache cache{model, [this](const Tensor& x) { return run(x); }};

  Case() { model.freeze(); }
  Tensor run(const Tensor& x) const { return model(x) + shift.value(); }
  Tensor rows(const FeatureCache::Indices& indices) const {
    return index_select(pool, 0, to(tensor(indices), pool.device()));
  }
  Tensor cached(const FeatureCache::Indices& indices) {
    return cache(indices, [this](const FeatureCache::Indices& missing) { return rows(missing); });
  }
};

}  // namespace

TEST_CASE("features are computed once for each example and given in the order asked", "[feature_cache]") {
  Case c;
  const FeatureCache::Indices first{3, 1, 3, 7};
  const NoGrad no_grad;
  CHECK(test::same_bits(c.cached({3}), c.run(c.rows({3}))));
  CHECK(max(abs(c.cached(first) - c.run(c.rows(first)))).item() < 1e-6);
  CHECK(c.cache.computed() == 3);
  CHECK(c.cache.size() == 3);
  c.cached({7, 1});
  CHECK(c.cache.computed() == 3);
  c.cached({2, 7});
  CHECK(c.cache.computed() == 4);
  CHECK_FALSE(c.cached({1}).requires_grad());
}

TEST_CASE("every way to write into the prefix makes its features old", "[feature_cache]") {
  Case c;
  Case other;
  nn::Parameter& w = c.model.layer(0).weight;
  const auto trained = [&](const std::function<void()>& update) {
    w.set_trainable(true);
    sum(c.run(c.pool)).backward();
    update();
    w.set_trainable(false);
  };
  const std::vector<std::pair<const char*, std::function<void()>>> writes{
      {"set", [&] { w.set(w.value().detach() * 2); }},
      {"set with equal values", [&] { w.set(w.value().detach().clone()); }},
      {"load", [&] { c.model.load(other.model.state()); }},
      {"fill_", [&] { c.model.layer(1).bias->value().fill_(0.5); }},
      {"a view", [&] { slice(w.value().detach(), 0, 0, 1).fill_(1); }},
      {"a buffer", [&] { c.shift.set(ones({5})); }},
      {"SGD", [&] { trained([&] { optim::Sgd(c.model.parameters(), {.lr = 0.1}).step(); }); }},
      {"Adam", [&] { trained([&] { optim::Adam(c.model.parameters(), {.lr = 0.1}).step(); }); }},
  };
  for (const auto& [name, write] : writes) {
    CAPTURE(name);
    c.cached({1, 2});
    const auto before = c.cache.computed();
    c.cached({1, 2});
    CHECK(c.cache.computed() == before);
    {
      const NoGrad no_grad;
      if (std::string(name) != "SGD" && std::string(name) != "Adam") write();
    }
    if (std::string(name) == "SGD" || std::string(name) == "Adam") write();
    const Tensor features = c.cached({1, 2});
    CHECK(c.cache.computed() == before + 2);
    const NoGrad no_grad;
    CHECK(max(abs(features - c.run(c.rows({1, 2})))).item() < 1e-5);
  }
}

TEST_CASE("whatever stands behind a block's attention makes features old when it comes and goes", "[feature_cache]") {
  nn::TransformerBlock block({.width = 4, .heads = 2, .hidden = 8});
  block.freeze();
  struct Twice final : nn::SublayerSlot {
    Tensor operator()(const Tensor&, const Tensor& y) override { return y * 2.0; }
  } twice;
  const Tensor x = test::spread({1, 3, 4}, -1, 1, 1, f32);
  FeatureCache cache(block, [&](const Tensor& in) { return block(in); });
  const auto cached = [&] { return cache({5}, [&](const FeatureCache::Indices&) { return x; }); };
  const Tensor plain = cached();
  block.attention_slot = &twice;
  CHECK_FALSE(same_bits(cached(), plain));
  block.attention_slot = nullptr;
  CHECK(same_bits(cached(), plain));
}

TEST_CASE("a pointer for writing makes features old", "[feature_cache]") {
  const test::OnCpu cpu("mutable_data() is the host's");
  Case c;
  c.cached({1});
  c.model.layer(0).weight.value().mutable_data<float>()[0] = 3;
  c.cached({1});
  CHECK(c.cache.computed() == 2);
}

TEST_CASE("a move to another device makes features old", "[feature_cache]") {
  nn::Mlp model({4, 3});
  model.freeze();
  FeatureCache cache(model, [&](const Tensor& x) { return model(x); });
  const auto run = [&] {
    return cache({0}, [&](const FeatureCache::Indices&) { return zeros({1, 4}, {DType::f32, model.device()}); });
  };
  run();
  model.to(Device::cpu());
  CHECK(run().device() == Device::cpu());
  CHECK(cache.computed() == (default_device() == Device::cpu() ? 1 : 2));
}

TEST_CASE("adapters in the prefix make features old", "[feature_cache]") {
  Case c;
  Adapters adapters(c.model);
  const auto fresh = [&](const std::function<void()>& change) {
    c.cached({1});
    const auto before = c.cache.computed();
    change();
    c.cached({1});
    return c.cache.computed() == before + 1;
  };
  const auto attach = [&](const std::string& name) {
    adapters.attach(name, Ia3Options{.targets = {"*"}});
    for (nn::Parameter* p : adapters.parameters(name)) p->set_trainable(false);
  };
  CHECK(fresh([&] { attach("a"); }));
  CHECK(fresh([&] { attach("b"); }));
  CHECK(fresh([&] { adapters.activate("a"); }));
  CHECK(fresh([&] { adapters.merge(); }));
  CHECK(fresh([&] { adapters.unmerge(); }));
  CHECK(fresh([&] { adapters.deactivate(); }));
  CHECK(fresh([&] { adapters.detach("a"); }));
  CHECK_FALSE(fresh([] {}));
  // Copies in the parameters' places, where no layer's slot is taken.
  adapters.attach("whole", LoraOptions{.modules_to_save = {"fc2"}});
  for (nn::Parameter* p : adapters.parameters("whole")) p->set_trainable(false);
  CHECK(fresh([&] { adapters.deactivate(); }));
  CHECK(fresh([&] { adapters.activate("whole"); }));
  CHECK_FALSE(fresh([] {}));
}

TEST_CASE("a prefix that is not fixed is refused by name", "[feature_cache][misuse]") {
  Case c;
  c.model.unfreeze("fc2.bias");
  CHECK_THAT(message_of([&] { c.cached({1}); }), Contains("parameter 'fc2.bias' is trainable"));
  c.model.freeze();
  CHECK_THAT(message_of([&] { c.cached({}); }), Contains("no examples"));
  nn::Dropout dropout(&c.extra, "drop", 0.5);
  CHECK_THAT(message_of([&] { c.cached({1}); }), Contains("dropout 'extra.drop' is active"));
  c.model.eval();
  CHECK(message_of([&] { c.cached({1}); }) == "no error");

  nn::Llama llama({.vocab_size = 9,
                   .hidden_size = 8,
                   .intermediate_size = 12,
                   .num_hidden_layers = 1,
                   .num_attention_heads = 2,
                   .attention_dropout = 0.1});
  llama.freeze();
  FeatureCache cache(llama, [&](const Tensor& x) { return llama(x); });
  const auto run = [&] {
    cache({0}, [](const FeatureCache::Indices&) { return zeros({1, 3}, {DType::i64, default_device()}); });
  };
  CHECK_THAT(message_of(run), Contains("buffer 'model.layers.0.self_attn.generator' is written by the prefix"));
  CHECK(cache.size() == 0);
  llama.eval();
  CHECK(message_of(run) == "no error");
  FeatureCache wrong(llama, [&](const Tensor& x) { return sum(llama(x)); });
  CHECK_THAT(message_of([&] {
               wrong({0}, [](const FeatureCache::Indices&) { return zeros({1, 3}, {DType::i64, default_device()}); });
             }),
             Contains("expected a row for each"));
}

TEST_CASE("a prefix of several modules is watched as a whole", "[feature_cache]") {
  nn::Linear first(4, 5), second(5, 3), behind(3, 2);
  const Tensor pool = test::spread({6, 4}, -1, 1, 1, f32);
  FeatureCache cache({&first, &second}, [&](const Tensor& x) { return second(first(x)); });
  const auto cached = [&] { return cache({2}, [&](const FeatureCache::Indices&) { return slice(pool, 0, 2, 3); }); };
  first.freeze();
  CHECK_THAT(message_of([&] { cached(); }), Contains("is trainable"));
  second.freeze();
  const NoGrad no_grad;
  const Tensor before = cached();
  behind.weight.set(zeros({2, 3}));  // no part of the prefix
  CHECK(same_bits(cached(), before));
  CHECK(cache.computed() == 1);
  for (nn::Linear* part : {&first, &second}) {
    const std::int64_t computed = cache.computed();
    part->weight.set(part->weight.value() * 2.0);
    CHECK(same_bits(cached(), second(first(slice(pool, 0, 2, 3)))));
    CHECK(cache.computed() == computed + 1);
  }
}
