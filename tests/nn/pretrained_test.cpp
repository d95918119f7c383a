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
#include "support/scratch.h"

using namespace stet;
namespace fs = std::filesystem;

namespace {

const fs::path kGoldens = fs::path(STET_SOURCE_DIR) / "tests" / "golden" / "pretrained";
constexpr const char* kFolders[] = {"gpt2",       "gpt2_bare", "llama", "llama_tied", "llama_shards", "llama_f16",
                                    "llama_bf16", "mistral",   "qwen2", "bert",       "bert_old"};

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
    return std::max(test::golden_error(out.hidden, golden.at("out")),
                    test::golden_error(out.pooled, golden.at("pooled")));
  }
  const auto* gpt2 = std::get_if<std::unique_ptr<nn::Gpt2>>(&model.model);
  const Tensor out = gpt2 ? (**gpt2)(tokens) : (*std::get<std::unique_ptr<nn::Llama>>(model.model))(tokens);
  return test::golden_error(out, golden.at("out"));
}

void save(const nn::Pretrained& model, const fs::path& folder) {
  std::visit([&](const auto& held) { nn::save_pretrained(*held, folder); }, model.model);
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
  CHECK(nn::load_pretrained(kGoldens / "bert").left_out.empty());
  CHECK(nn::load_pretrained(kGoldens / "bert_old").left_out.size() == 7);
  std::cout << "pretrained: " << std::size(kFolders) << " folders, worst relative error " << worst << '\n';
}

TEST_CASE("A saved folder gives the same parameters and results") {
  const test::Scratch scratch;
  // A folder that outlives the test, for make_pretrained_goldens.py --compare.
  const char* keep = std::getenv("STET_KEEP_PRETRAINED");
  for (const std::string name : kFolders) {
    INFO(name);
    const nn::Pretrained first = nn::load_pretrained(kGoldens / name);
    const fs::path folder = (keep ? fs::path(keep) : scratch.path()) / name;
    save(first, folder);
    const nn::Pretrained second = nn::load_pretrained(folder);
    CHECK(error_of(second, expected(name + "/expected.safetensors")) <= 1e-5);
    const auto a = first.module().parameters(), b = second.module().parameters();
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(test::same_bits(a[i]->value(), b[i]->value()));
  }
}

TEST_CASE("stories260K continues as transformers does") {
  const fs::path file = shared_file("stories260K.bin");
  if (!fs::exists(file)) {
    std::cout << "skipped: no stories260K at " << file << " (STET_SHARED_DATA names the folder above its own)\n";
    return;
  }
  const auto model = nn::load_llama2c(file);
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
  const Tensor mask = reshape(cast(padding, f32), {2, 8, 1});
  const Tensor pooled = sum(hidden * mask, {1}) / sum(mask, {1});
  const Tensor embedding = pooled / sqrt(sum(pooled * pooled, {1}, true));
  const double error = test::golden_error(embedding, golden.at("embedding"));
  CHECK(error <= 1e-4);
  std::cout << "MiniLM: relative error of embeddings " << error << '\n';
}
