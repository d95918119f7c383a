// Not a test: writes a small Llama and a small GPT-2, each with a tokenizer trained on the README, as folders llama/
// and gpt2/ under STET_TINY_MODELS, for the scripts that run the examples on model folders.
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <stet/data/tokenizers/train_bpe.h>
#include <stet/nn/pretrained.h>

#include "support/catch.h"
#include "support/models.h"

using namespace stet;

TEST_CASE("tiny models for the examples", "[.tiny_models]") {
  const char* folder = std::getenv("STET_TINY_MODELS");
  REQUIRE(folder);
  const std::filesystem::path root = folder;
  std::ostringstream readme;
  readme << std::ifstream(std::filesystem::path(STET_SOURCE_DIR) / "README.md").rdbuf();
  const auto tokenizer = data::train_bpe(std::vector<std::string>{readme.str()}, 300);
  manual_seed(1);
  nn::LlamaConfig llama = test::small_llama();
  llama.vocab_size = tokenizer->vocab_size();
  nn::save_pretrained(nn::Llama(llama), root / "llama");
  nn::Gpt2Config gpt2 = test::small_gpt2();
  gpt2.vocab_size = tokenizer->vocab_size();
  nn::save_pretrained(nn::Gpt2(gpt2), root / "gpt2");
  for (const char* name : {"llama", "gpt2"}) tokenizer->save(root / name / "tokenizer.json");
}
