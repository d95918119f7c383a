// A user's program against the installed package: the umbrella header compiles alone, tensors and tokenizers
// work, the library links with all that it needs itself, and its exceptions are caught across the boundary.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <stet/stet.h>

int main() {
  const stet::Tensor ones = stet::ones({2, 3});
  if (ones.numel() != 6 || ones.to_vector<float>() != std::vector<float>(6, 1.0f)) return 1;
  const std::vector<std::string> texts = {"na\xc3\xafve"};
  if (stet::data::train_bpe(texts, 257)->encode(texts[0]).size() != 6) return 1;
  try {
    stet::data::load_tokenizer("no-such-tokenizer");
    return 1;
  } catch (const stet::Error&) {
  }
  try {
    stet::data::find_dataset("no-such-data-set");
  } catch (const stet::Error& error) {
    std::puts(error.what());
    return std::strstr(error.what(), "[find_dataset]") ? 0 : 1;
  }
  return 1;
}
