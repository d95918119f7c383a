// Released folders against transformers: each family and way of storing, there and back; llama2.c's stories260K;
// MiniLM. Goldens are written by tests/golden/make_pretrained_goldens.py.
#include <cstdlib>
#include <iostream>

#include <stet/autograd/ops.h>
#include <stet/nn/generate.h>
#include <stet/nn/pretrained.h>

#include "support/catch.h"
#include "support/device.h"
#include "support/goldens.h"
#include "support/message.h"
#include "support/scratch.h"

using namespace stet;
namespace fs = std::filesystem;

namespace {

const fs::path kGoldens = fs::path(STET_SOURCE_DIR) / "tests" / "golden" / "pretrained";
constexpr const char* kFolders[] = {"gpt2",
                                    "gpt2_bare",
                                    "llama",
                                    "llama_tied",
                                    "llama_shards",
                                    "llama_f16",
                                    "llama_bf16",
                                    "mistral",
                                    "qwen2",
                                    "bert",
                                    "bert_old",
                                    "bert_no_pooler",
                                    "bert_classifier",
                                    "bert_classifier_plain",
                                    "mistral_window",
                                    "qwen2_window",
                                    "qwen2_window_old",
                                    "llama_rope",
                                    "llama_linear",
                                    "llama_dynamic",
                                    "llama_yarn",
                                    "llama_yarn_old"};

nn::State expected(const std::string& name) {
  nn::State state = nn::load_safetensors(kGoldens / name);
  for (auto& [key, value] : state) value = to(value, default_device());
  return state;
}

/// The largest relative error of everything that the golden has.
double error_of(const nn::Pretrained& model, const nn::State& golden) {
  const NoGrad no_grad;
  const nn::EvalScope eval(model.module());
  const Tensor& tokens = golden.at("tokens");
  if (const auto* bert = std::get_if<std::unique_ptr<nn::Bert>>(&model.model)) {
    const nn::BertOutput out = (**bert)(tokens, {.padding = golden.at("padding")});
    CHECK(out.pooled.defined() == golden.contains("pooled"));
    const double error = test::golden_error(out.hidden, golden.at("out"));
    return out.pooled.defined() ? std::max(error, test::golden_error(out.pooled, golden.at("pooled"))) : error;
  }
  if (const auto* classifier = std::get_if<std::unique_ptr<nn::BertClassifier>>(&model.model))
    return test::golden_error((**classifier)(tokens, {.padding = golden.at("padding")}), golden.at("out"));
  const auto* gpt2 = std::get_if<std::unique_ptr<nn::Gpt2>>(&model.model);
  const Tensor out = gpt2 ? (**gpt2)(tokens) : (*std::get<std::unique_ptr<nn::Llama>>(model.model))(tokens);
  return test::golden_error(out, golden.at("out"));
}

fs::path shared_file(const char* name) {
  const char* shared = std::getenv("STET_SHARED_DATA");
  return (shared ? fs::path(shared) : fs::path(STET_SOURCE_DIR) / ".." / "shared" / "data") / "stories260k" / name;
}

}  // namespace

TEST_CASE("Released folders give transformers' results") {
  double worst = 0;
  for (const std::string name : kFolders) {
    INFO(name);
    const nn::Pretrained model = nn::load_pretrained(kGoldens / name);
    CHECK(model.model_type == name.substr(0, name.find('_')));
    const double error = error_of(model, expected(name + "/expected.safetensors"));
    CHECK(error <= 1e-5);
    worst = std::max(worst, error);
  }
  CHECK(nn::load_pretrained(kGoldens / "gpt2").end_tokens == std::vector<std::int64_t>{2, 3});
  CHECK(nn::load_pretrained(kGoldens / "llama").end_tokens == std::vector<std::int64_t>{2});
  const test::Scratch chat;
  fs::copy(kGoldens / "llama", chat.path());
  chat.write("generation_config.json", R"({"do_sample": true})");
  CHECK(nn::load_pretrained(chat.path()).end_tokens == std::vector<std::int64_t>{2});
  chat.write("generation_config.json", R"({"eos_token_id": [5, 2]})");
  CHECK(nn::load_pretrained(chat.path()).end_tokens == std::vector<std::int64_t>{5, 2});
  CHECK(nn::load_pretrained(kGoldens / "bert").left_out.empty());
  CHECK(nn::load_pretrained(kGoldens / "bert_old").left_out.size() == 7);
  CHECK(nn::load_pretrained(kGoldens / "bert_no_pooler").left_out.size() == 5);
  std::cout << "pretrained: " << std::size(kFolders) << " folders, worst relative error " << worst << '\n';
}

TEST_CASE("Names without their prefix, and heads of other tasks, are known") {
  const test::Scratch scratch;
  const auto changed = [&](const char* folder, const auto& change) {
    nn::State state;
    for (const auto& [name, value] : nn::load_safetensors(kGoldens / folder / "model.safetensors"))
      state[name.starts_with("model.") ? name.substr(6) : name] = value;
    change(state);
    fs::copy(kGoldens / folder / "config.json", scratch.path(), fs::copy_options::overwrite_existing);
    nn::save_safetensors(scratch.path() / "model.safetensors", state);
    return nn::load_pretrained(scratch.path());
  };
  const nn::Pretrained bare = changed("llama", [](const nn::State& s) { REQUIRE(s.contains("lm_head.weight")); });
  CHECK(error_of(bare, expected("llama/expected.safetensors")) <= 1e-5);
  const nn::Pretrained bert = changed("bert", [](nn::State& s) { s["qa_outputs.bias"] = zeros({2}); });
  CHECK(bert.left_out == std::vector<std::string>{"qa_outputs.bias"});
  CHECK(error_of(bert, expected("bert/expected.safetensors")) <= 1e-5);
}

TEST_CASE("A window slides over cached keys as over a whole text") {
  for (const std::string name : {"mistral_window", "qwen2_window"}) {
    INFO(name);
    const nn::Pretrained loaded = nn::load_pretrained(kGoldens / name);
    auto& model = *std::get<std::unique_ptr<nn::Llama>>(loaded.model);
    CHECK(model.config().sliding_window > 0);
    CHECK(model.config().max_window_layers == (name == "qwen2_window"));
    const Tensor tokens = expected(name + "/expected.safetensors").at("tokens");
    const NoGrad no_grad;
    const nn::EvalScope eval(model);
    const Tensor whole = model(tokens);
    nn::KvCache cache;
    for (std::int64_t at = 0, size = 1; at < 7; at += size, size = 2) {
      const Tensor part = model(slice(tokens, 1, at, at + size), {.cache = &cache});
      CHECK(test::golden_error(part, slice(whole, 1, at, at + size)) <= 1e-5);
    }
  }
}

TEST_CASE("A saved folder gives the same parameters and results") {
  const test::Scratch scratch;
  // A folder that outlives the test, for make_pretrained_goldens.py --compare.
  const char* keep = std::getenv("STET_KEEP_PRETRAINED");
  for (const std::string name : kFolders) {
    INFO(name);
    const nn::Pretrained first = nn::load_pretrained(kGoldens / name);
    const fs::path folder = (keep ? fs::path(keep) : scratch.path()) / name;
    nn::save_pretrained(first, folder);
    const nn::Pretrained second = nn::load_pretrained(folder);
    CHECK(error_of(second, expected(name + "/expected.safetensors")) <= 1e-5);
    CHECK(second.end_tokens == first.end_tokens);
    const auto a = first.module().parameters(), b = second.module().parameters();
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(test::same_bits(a[i]->value(), b[i]->value()));
  }
}

TEST_CASE("End tokens are saved where readers look for them first") {
  const test::Scratch scratch;
  nn::Pretrained model = nn::load_pretrained(kGoldens / "llama");
  scratch.write("generation_config.json", R"({"top_k": 7, "eos_token_id": 2})");
  for (const std::vector<std::int64_t>& ends : {std::vector<std::int64_t>{7, 9}, {5}, {}}) {
    model.end_tokens = ends;
    nn::save_pretrained(model, scratch.path());
    CHECK(nn::load_pretrained(scratch.path()).end_tokens == ends);
  }
  CHECK_THAT(scratch.read("generation_config.json"), Catch::Matchers::Contains("\"top_k\": 7"));
  const std::string before = scratch.read("config.json");
  scratch.write("generation_config.json", "[1");
  model.end_tokens = {3};
  CHECK(test::message_of([&] { nn::save_pretrained(model, scratch.path()); }).find("generation_config.json") !=
        std::string::npos);
  CHECK(scratch.read("config.json") == before);
}

TEST_CASE("A model inside another one is saved under the names of its own") {
  const test::Scratch scratch;
  const nn::Pretrained first = nn::load_pretrained(kGoldens / "bert");
  const auto& bert = *std::get<std::unique_ptr<nn::Bert>>(first.model);
  struct Outer : nn::Module {
    nn::Bert encoder;
    explicit Outer(const nn::BertConfig& config) : encoder(this, "encoder", config) {}
  } outer(bert.config());
  outer.encoder.load(bert.state());
  nn::save_pretrained(outer.encoder, scratch.path());
  const nn::Pretrained second = nn::load_pretrained(scratch.path());
  const auto a = bert.parameters(), b = second.module().parameters();
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(test::same_bits(a[i]->value(), b[i]->value()));
}

TEST_CASE("What a classifier's labels are is kept, and its dropout is followed") {
  const test::Scratch scratch;
  const auto load = [](const fs::path& folder) {
    return std::get<std::unique_ptr<nn::BertClassifier>>(nn::load_pretrained(folder).model);
  };
  const auto first = load(kGoldens / "bert_classifier");
  nn::save_pretrained(*first, scratch.path());
  for (const fs::path& folder : {kGoldens / "bert_classifier", scratch.path()}) {
    const nn::BertClassifierOptions options = load(folder)->options();
    CHECK(options.num_labels == 3);
    CHECK(options.labels == std::vector<std::string>{"red", "green", "blue"});
    CHECK(options.classifier_dropout == 0.25);
    CHECK(options.problem_type == nn::ProblemType::single_label);
  }
  const nn::BertClassifierOptions plain = load(kGoldens / "bert_classifier_plain")->options();
  CHECK(plain.num_labels == 2);
  CHECK(plain.labels.empty());
  CHECK_FALSE(plain.classifier_dropout);
  CHECK_FALSE(plain.problem_type);
  CHECK_THROWS_AS(nn::save_pretrained(nn::BertClassifier(first->bert.config(), {.labels = {"a", "a"}}), scratch.path()),
                  Error);
  CHECK_THROWS_AS(nn::BertClassifier(first->bert.config(), {.labels = {"a"}}), Error);
  const std::string message = test::message_of([&] {
    nn::save_pretrained(nn::BertClassifier(first->bert.config(), {.labels = {"a", "caf\xe9"}}), scratch.path());
  });
  CHECK(message.starts_with("[save_pretrained] label 1: found "));
  nn::BertConfig without = first->bert.config();
  without.pooler = false;
  CHECK_THROWS_AS(nn::BertClassifier(without, {}), Error);
}

TEST_CASE("A new classifier stands on a released encoder") {
  const nn::Pretrained encoder = nn::load_pretrained(kGoldens / "bert");
  const auto& bert = *std::get<std::unique_ptr<nn::Bert>>(encoder.model);
  nn::BertClassifier model(bert.config(), {.labels = {"yes", "no"}});
  model.bert.load(bert.state());
  const nn::State golden = expected("bert/expected.safetensors");
  const NoGrad no_grad;
  const nn::EvalScope eval(model);
  CHECK(test::golden_error(model.bert(golden.at("tokens"), {.padding = golden.at("padding")}).pooled,
                           golden.at("pooled")) <= 1e-5);
  CHECK(model(golden.at("tokens")).shape() == Shape{2, 2});
}

TEST_CASE("The mean over tokens leaves padding out, and a prefix and the rest are the whole") {
  const nn::Pretrained loaded = nn::load_pretrained(kGoldens / "bert_no_pooler");
  auto& bert = *std::get<std::unique_ptr<nn::Bert>>(loaded.model);
  const nn::State golden = expected("bert_no_pooler/expected.safetensors");
  const NoGrad no_grad;
  const nn::EvalScope eval(bert);
  const Tensor &tokens = golden.at("tokens"), &padding = golden.at("padding"), &hidden = golden.at("out");
  const Tensor pooled = nn::mean_pooling(hidden, padding);
  CHECK(test::golden_error(select(pooled, 0, 0), mean(select(hidden, 0, 0), {0})) <= 1e-6);
  CHECK(test::golden_error(select(pooled, 0, 1), mean(slice(select(hidden, 0, 1), 0, 0, 4), {0})) <= 1e-6);
  CHECK(max(abs(nn::mean_pooling(hidden, zeros(padding.shape(), {DType::boolean, padding.device()})))).item() == 0);
  CHECK_THROWS_AS(nn::mean_pooling(hidden, slice(padding, 1, 0, 3)), Error);
  const Tensor lower = bert.layers->run(bert.embed(tokens), {.padding = padding}, 0, 1);
  CHECK(
      test::same_bits(bert.layers->run(lower, {.padding = padding}, 1, 2), bert(tokens, {.padding = padding}).hidden));
  CHECK(bert.prefix(1).size() == 2);
  CHECK(bert.prefix(2)[2]->path() == "encoder.layer.1");
  CHECK(bert.prefix(0)[0]->path() == "embeddings");
  CHECK_THROWS_AS(bert.prefix(3), Error);
  CHECK_THROWS_AS(bert.layers->run(lower, {}, 1, 3), Error);
}

TEST_CASE("stories260K continues as transformers does") {
  const fs::path file = shared_file("stories260K.bin");
  if (!fs::exists(file)) {
    std::cout << "skipped: no stories260K at " << file << " (STET_SHARED_DATA names the folder above its own)\n";
    return;
  }
  const nn::Pretrained loaded = nn::load_pretrained(file);
  CHECK(loaded.end_tokens == std::vector<std::int64_t>{1, 2});
  const auto& model = std::get<std::unique_ptr<nn::Llama>>(loaded.model);
  CHECK(model->count() == 260'032);
  const auto golden = nn::load_safetensors(kGoldens / "stories260k.safetensors").at("tokens").to_vector<std::int64_t>();
  REQUIRE(golden.size() == 201);
  const auto made = nn::generate(*model, std::vector<std::int64_t>{1}, {.max_new_tokens = 200});
  CHECK(made == std::vector<std::int64_t>(golden.begin() + 1, golden.end()));
}

TEST_CASE("MiniLM's embeddings are transformers'") {
  const char* folder = std::getenv("STET_MINILM_DIR");
  if (!folder) {
    std::cout << "skipped: no all-MiniLM-L6-v2 (STET_MINILM_DIR names its folder)\n";
    return;
  }
  const nn::Pretrained model = nn::load_pretrained(folder);
  const nn::State golden = expected("minilm.safetensors");
  const NoGrad no_grad;
  const nn::EvalScope eval(model.module());
  const Tensor padding = golden.at("padding");
  const Tensor hidden =
      (*std::get<std::unique_ptr<nn::Bert>>(model.model))(golden.at("tokens"), {.padding = padding}).hidden;
  const Tensor pooled = nn::mean_pooling(hidden, padding);
  const Tensor embedding = pooled / sqrt(sum(pooled * pooled, {1}, true));
  const double error = test::golden_error(embedding, golden.at("embedding"));
  CHECK(error <= 1e-4);
  std::cout << "MiniLM: relative error of embeddings " << error << '\n';
}
