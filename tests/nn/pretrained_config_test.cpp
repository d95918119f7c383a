// config.json: transformers' defaults for the fields that a file leaves out, and each field there and back.
#include <stet/nn/pretrained_config.h>

#include "support/catch.h"
#include "support/scratch.h"

using namespace stet;
using Catch::Matchers::Contains;

namespace {

nn::pretrained::Config read(const std::string& text) {
  const test::Scratch scratch;
  return nn::pretrained::read_config(scratch.write("config.json", text));
}
nn::LlamaConfig read_llama(const std::string& type, const std::string& more = "",
                           const std::string& positions = R"(,"max_position_embeddings":16)") {
  return std::get<nn::LlamaConfig>(read(R"({"model_type":")" + type + R"(","vocab_size":19,"hidden_size":8,)" +
                                        R"("intermediate_size":12,"num_hidden_layers":30,"num_attention_heads":4,)" +
                                        R"("num_key_value_heads":2)" + positions + more + "}")
                                       .model);
}

}  // namespace

TEST_CASE("What config.json leaves out has transformers' defaults") {
  const auto gpt2 = std::get<nn::Gpt2Config>(
      read(R"({"model_type":"gpt2","vocab_size":19,"n_positions":16,"n_embd":8,"n_layer":2,"n_head":4})").model);
  CHECK(gpt2.n_inner == 0);
  CHECK(gpt2.activation_function == nn::MlpKind::gelu_tanh);
  CHECK((gpt2.resid_pdrop == 0.1 && gpt2.embd_pdrop == 0.1 && gpt2.attn_pdrop == 0.1));
  CHECK((gpt2.layer_norm_epsilon == 1e-5 && gpt2.initializer_range == 0.02));
  const auto bert = std::get<nn::BertConfig>(
      read(R"({"model_type":"bert","vocab_size":19,"hidden_size":8,"num_hidden_layers":2,"num_attention_heads":4,)"
           R"("intermediate_size":12,"max_position_embeddings":16,"type_vocab_size":2})")
          .model);
  CHECK(bert.hidden_act == nn::MlpKind::gelu);
  CHECK((bert.hidden_dropout_prob == 0.1 && bert.attention_probs_dropout_prob == 0.1));
  CHECK((bert.layer_norm_eps == 1e-12 && bert.initializer_range == 0.02));
  const nn::LlamaConfig llama = read_llama("llama");
  CHECK((llama.rms_norm_eps == 1e-6 && llama.rope_theta == 10000 && llama.initializer_range == 0.02));
  CHECK_FALSE((llama.attention_bias || llama.mlp_bias || llama.tie_word_embeddings));
  CHECK((llama.attention_dropout == 0 && llama.head_dim == 0 && llama.sliding_window == 0));
  CHECK(llama.rope_scaling == nn::RopeScaling{});
  const nn::RopeScaling yarn = read_llama("llama", R"(,"rope_scaling":{"type":"yarn","factor":4})").rope_scaling;
  CHECK((yarn.kind == nn::RopeScaling::Kind::yarn && yarn.factor == 4 && yarn.truncate && !yarn.attention_factor));
  CHECK((yarn.beta_fast == 32 && yarn.beta_slow == 1 && yarn.original_max_position_embeddings == 16));
}

TEST_CASE("A window over every position is none; Qwen2 has one where it is switched on, from block 28") {
  CHECK(read_llama("mistral", R"(,"sliding_window":15)").sliding_window == 15);
  CHECK(read_llama("mistral", R"(,"sliding_window":16)").sliding_window == 0);
  CHECK(read_llama("qwen2", R"(,"sliding_window":4)").sliding_window == 0);
  const nn::LlamaConfig qwen2 = read_llama("qwen2", R"(,"sliding_window":4,"use_sliding_window":true)");
  CHECK((qwen2.sliding_window == 4 && qwen2.max_window_layers == 28));
  CHECK((qwen2.attention_bias && qwen2.output_bias == false));
}

TEST_CASE("A window that a file does not name is 4,096 keys, and null is none") {
  const auto window = [](const std::string& type, const std::string& more) {
    return read_llama(type, R"(,"max_position_embeddings":8192)" + more, "").sliding_window;
  };
  CHECK(window("mistral", "") == 4096);
  CHECK(window("mistral", R"(,"sliding_window":null)") == 0);
  CHECK(window("qwen2", "") == 0);
  CHECK(window("qwen2", R"(,"use_sliding_window":true)") == 4096);
  CHECK(window("qwen2", R"(,"use_sliding_window":true,"sliding_window":null)") == 0);
  CHECK(window("llama", "") == 0);
}

TEST_CASE("End tokens that a file does not name are the family's, and null is none") {
  const auto ends = [](const std::string& type, const std::string& more) {
    return read(R"({"model_type":")" + type + R"(","vocab_size":19,"hidden_size":8,"intermediate_size":12,)" +
                R"("num_hidden_layers":1,"num_attention_heads":4,"num_key_value_heads":2,)" +
                R"("max_position_embeddings":16)" + more + "}")
        .end_tokens;
  };
  using Ends = std::vector<std::int64_t>;
  CHECK(ends("llama", "") == Ends{2});
  CHECK(ends("mistral", "") == Ends{2});
  CHECK(ends("qwen2", "") == Ends{});
  CHECK(ends("llama", R"(,"eos_token_id":null)") == Ends{});
  CHECK(ends("llama", R"(,"eos_token_id":[3,4])") == Ends{3, 4});
  CHECK(
      read(R"({"model_type":"gpt2","vocab_size":19,"n_positions":16,"n_embd":8,"n_layer":2,"n_head":4})").end_tokens ==
      Ends{50256});
  CHECK_THAT(nn::pretrained::config_text(nn::LlamaConfig{}, Ends{}), Contains("\"eos_token_id\": null"));
  CHECK_THROWS_WITH(nn::pretrained::config_text(nn::LlamaConfig{}, Ends{-1}),
                    "[save_pretrained] end token -1: expected at least 0");
}

TEST_CASE("YaRN's factor is the ratio of lengths where it is null") {
  const auto scaling = [](const std::string& original) {
    return read_llama("llama", R"(,"rope_scaling":{"rope_type":"yarn","factor":null)" + original + "}").rope_scaling;
  };
  CHECK(scaling(R"(,"original_max_position_embeddings":4)").factor == 4);
  CHECK(scaling("").factor == 1);
}

TEST_CASE("Every field of a configuration is written under its name and read again") {
  const auto there_and_back = [](const auto& config, const auto&... more) {
    const std::string text = nn::pretrained::config_text(config, more...);
    const auto again = read(text);
    CHECK(nn::pretrained::config_text(std::get<std::decay_t<decltype(config)>>(again.model), more...) == text);
    return text;
  };
  const std::vector<std::int64_t> ends{3};
  CHECK_THAT(there_and_back(nn::Gpt2Config{.n_inner = 12,
                                           .activation_function = nn::MlpKind::relu,
                                           .resid_pdrop = 0.2,
                                           .embd_pdrop = 0.3,
                                           .attn_pdrop = 0.4,
                                           .layer_norm_epsilon = 0.5,
                                           .initializer_range = 0.6},
                            ends),
             Contains("\"n_inner\": 12") && Contains("\"activation_function\": \"relu\"") &&
                 Contains("\"resid_pdrop\": 0.2") && Contains("\"embd_pdrop\": 0.3") &&
                 Contains("\"attn_pdrop\": 0.4") && Contains("\"layer_norm_epsilon\": 0.5") &&
                 Contains("\"initializer_range\": 0.6") && Contains("\"eos_token_id\": 3"));
  CHECK_THAT(there_and_back(nn::Gpt2Config{.resid_pdrop = 1, .embd_pdrop = 1, .layer_norm_epsilon = 2}, ends),
             Contains("\"resid_pdrop\": 1.0") && Contains("\"embd_pdrop\": 1.0"));
  CHECK_THAT(there_and_back(nn::BertConfig{.hidden_act = nn::MlpKind::relu,
                                           .hidden_dropout_prob = 0.2,
                                           .attention_probs_dropout_prob = 0.3,
                                           .layer_norm_eps = 0.4,
                                           .initializer_range = 0.5}),
             Contains("\"hidden_act\": \"relu\"") && Contains("\"hidden_dropout_prob\": 0.2") &&
                 Contains("\"attention_probs_dropout_prob\": 0.3") && Contains("\"layer_norm_eps\": 0.4") &&
                 Contains("\"initializer_range\": 0.5"));
  CHECK_THAT(there_and_back(nn::LlamaConfig{.num_key_value_heads = 8,
                                            .head_dim = 64,
                                            .rms_norm_eps = 0.2,
                                            .rope_theta = 3.5,
                                            .attention_dropout = 0.4,
                                            .initializer_range = 0.6,
                                            .mlp_bias = true,
                                            .tie_word_embeddings = true},
                            ends),
             Contains("\"num_key_value_heads\": 8") && Contains("\"head_dim\": 64") &&
                 Contains("\"rms_norm_eps\": 0.2") && Contains("\"rope_theta\": 3.5") &&
                 Contains("\"attention_dropout\": 0.4") && Contains("\"initializer_range\": 0.6") &&
                 Contains("\"attention_bias\": false") && Contains("\"mlp_bias\": true") &&
                 Contains("\"tie_word_embeddings\": true"));
}
