// A user's program against the installed package: the umbrella header compiles alone, the library links with
// all that it needs itself, and its exceptions are caught across the boundary.
#include <cstdio>
#include <cstring>

#include <stet/stet.h>

int main() {
  try {
    stet::data::find_dataset("no-such-data-set");
  } catch (const stet::Error& error) {
    std::puts(error.what());
    return std::strstr(error.what(), "[find_dataset]") ? 0 : 1;
  }
  return 1;
}
