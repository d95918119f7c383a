// A language model's training step as a recorded graph: attention's dropout draws anew in every replay, in forward and
// backward alike.
#include <optional>

#include <stet/cuda/cuda.h>
#include <stet/nn/models/gpt2.h>
#include <stet/nn/models/llama.h>
#include <stet/nn/sequence.h>
#include <stet/optim/optimizers.h>

#include "support/catch.h"
#include "support/samples.h"

using namespace stet;

namespace {

template <class Model> struct Training {
  Model model;
  optim::Adam optimizer;
  Tensor ids, loss;

  template <class Config> explicit Training(const Config& config)
      : model((manual_seed(3), config)), optimizer(model.parameters(), optim::AdamOptions{.lr = 0.01}) {
    Generator generator(1);
    ids = randint({2, 6}, 0, 13, generator);
  }
  void step() {
    optimizer.zero_grad();
    loss = nn::next_token_loss(model(ids), ids);
    loss.backward();
    optimizer.step();
  }
};

template <class Model, class Config> void check_recorded(const Config& config) {
  Training<Model> eager(config), recorded(config);
  for (int i = 0; i < 2; ++i) {
    eager.step();
    recorded.step();
  }
  cuda::Graph graph = cuda::capture([&] { recorded.step(); });
  eager.step();
  for (int i = 0; i < 3; ++i) {
    eager.step();
    graph.replay();
    CHECK(eager.loss.item() == recorded.loss.item());
  }
  const nn::State a = eager.model.state(), b = recorded.model.state();
  for (const auto& [name, value] : a) {
    INFO(name);
    CHECK(test::same_bits(value, b.at(name)));
  }
}

}  // namespace

TEST_CASE("A recorded step of a Transformer gives the bits of the eager step, dropout included") {
  if (!cuda::available()) return;
  const DefaultDevice device(Device::cuda());
  check_recorded<nn::Gpt2>(
      nn::Gpt2Config{.vocab_size = 13, .n_positions = 8, .n_embd = 8, .n_layer = 2, .n_head = 2, .attn_pdrop = 0.3});
  check_recorded<nn::Llama>(nn::LlamaConfig{.vocab_size = 13,
                                            .hidden_size = 8,
                                            .intermediate_size = 12,
                                            .num_hidden_layers = 1,
                                            .num_attention_heads = 2,
                                            .num_key_value_heads = 1,
                                            .tie_word_embeddings = true});
}
