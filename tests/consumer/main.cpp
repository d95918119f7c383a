// A user's program against the installed package: the umbrella header compiles alone, tensors work, the
// library links with all that it needs itself, and its exceptions are caught across the boundary.
#include <cstdio>
#include <cstring>
#include <vector>

#include <stet/stet.h>

int main() {
  const stet::Tensor ones = stet::ones({2, 3});
  if (ones.numel() != 6 || ones.to_vector<float>() != std::vector<float>(6, 1.0f)) return 1;
  try {
    stet::data::find_dataset("no-such-data-set");
  } catch (const stet::Error& error) {
    std::puts(error.what());
    return std::strstr(error.what(), "[find_dataset]") ? 0 : 1;
  }
  return 1;
}
