// Reads every #include of the source tree and fails on an arrow that goes against docs/design.md: tensor <-
// autograd
// <- nn <- optim <- continual, data on tensor, nothing on cuda. Also: third-party headers stay out of
// <stet/stet.h>.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/catch.h"
#include "support/scratch.h"

namespace fs = std::filesystem;

namespace {

using Names = std::set<std::string>;

/// What each folder may include besides itself. "." is the root, where the umbrella header is.
const std::map<std::string, Names> kAllowed = {
    {"tensor", {}},
    {"autograd", {"tensor"}},
    {"nn", {"tensor", "autograd"}},
    {"optim", {"tensor", "autograd", "nn"}},
    {"data", {"tensor"}},
    {"continual", {"tensor", "autograd", "nn", "optim", "data"}},
    {"cuda", {"tensor"}},
    {".", {"tensor", "autograd", "nn", "optim", "data", "continual"}},
    {"cli", {"tensor", "autograd", "nn", "optim", "data", "continual", "."}},
    {"examples", {"tensor", "autograd", "nn", "optim", "data", "continual", "cuda", "."}},
    {"bench", {"tensor", "autograd", "nn", "optim", "data", "continual", "cuda", "."}},
    {"tests", {"tensor", "autograd", "nn", "optim", "data", "continual", "bench", "examples", "cli", "cuda", "."}},
};

bool is_source(const fs::path& path) {
  static const Names extensions = {".h", ".cpp", ".cu", ".cuh", ".inc"};
  return extensions.contains(path.extension().string());
}

std::vector<fs::path> source_files(const fs::path& root) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(root))
    if (entry.is_regular_file() && is_source(entry.path())) files.push_back(entry.path());
  for (const auto& [folder, unused] : kAllowed) {
    if (folder == "." || !fs::is_directory(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder))
      if (entry.is_regular_file() && is_source(entry.path())) files.push_back(entry.path());
  }
  return files;
}

struct Include {
  std::string text;  // as written, with its brackets
  fs::path target;   // relative to the root; empty for a header that is not stet's
};

/// The "<name>" or "\"name\"" of an #include line, else nothing. (std::regex would be three times the build
/// time.)
std::string included_name(const std::string& line) {
  std::istringstream words(line);
  char hash = 0;
  std::string name;
  if (!(words >> hash) || hash != '#') return {};
  std::getline(words >> std::ws, name);
  if (!name.starts_with("include")) return {};
  const std::size_t open = name.find_first_of("<\"");
  const std::size_t close = open == std::string::npos ? open : name.find_first_of(">\"", open + 1);
  return close == std::string::npos ? std::string() : name.substr(open, close + 1 - open);
}

std::vector<Include> includes_of(const fs::path& root, const fs::path& file) {
  std::vector<Include> includes;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const std::string text = included_name(line);
    if (text.empty()) continue;
    const std::string name = text.substr(1, text.size() - 2);
    fs::path target;
    if (name.starts_with("stet/")) target = name.substr(5);
    else if (text.front() == '"')
      for (const auto& base : {file.parent_path(), root / "tests"})
        if (target.empty() && fs::exists(base / name)) target = fs::relative(base / name, root);
    includes.push_back({text, target.lexically_normal()});
  }
  return includes;
}

std::string folder_of(const fs::path& relative) {
  return relative.has_parent_path() ? relative.begin()->string() : ".";
}

/// One line for each include that goes against the arrows.
std::vector<std::string> bad_arrows(const fs::path& root) {
  std::vector<std::string> bad;
  for (const auto& file : source_files(root)) {
    const fs::path relative = fs::relative(file, root);
    const std::string from = folder_of(relative);
    for (const auto& include : includes_of(root, file)) {
      if (include.target.empty()) continue;
      const std::string to = folder_of(include.target);
      if (to != from && !kAllowed.at(from).contains(to))
        bad.push_back(relative.string() + " includes " + include.target.string() + ": " + from + " may not use " + to);
    }
  }
  return bad;
}

/// Third-party headers that a user of the umbrella header would have to have.
std::vector<std::string> exposed_headers(const fs::path& root) {
  const auto third_party = [](const std::string& text) {
    for (const char* name :
         {"nlohmann/", "zlib", "cblas", "openblas", "lapack", "catch2/", "cuda", "utf8proc", "sentencepiece"})
      if (text.substr(1).starts_with(name)) return true;
    return false;
  };
  std::vector<std::string> exposed;
  std::set<fs::path> seen = {"stet.h"};
  std::vector<fs::path> open = {"stet.h"};
  while (!open.empty()) {
    const fs::path file = open.back();
    open.pop_back();
    for (const auto& include : includes_of(root, root / file)) {
      if (third_party(include.text)) exposed.push_back(file.string() + ": " + include.text);
      if (!include.target.empty() && seen.insert(include.target).second) open.push_back(include.target);
    }
  }
  return exposed;
}

std::string lines(const std::vector<std::string>& items) {
  std::string text;
  for (const auto& item : items) text += "\n  " + item;
  return text;
}

}  // namespace

TEST_CASE("Includes follow the arrows of the design") {
  const fs::path root = STET_SOURCE_DIR;
  REQUIRE(source_files(root).size() > 10);
  const auto bad = bad_arrows(root);
  INFO(lines(bad));
  CHECK(bad.empty());
}

TEST_CASE("Third-party headers stay out of the umbrella header") {
  const auto exposed = exposed_headers(STET_SOURCE_DIR);
  INFO(lines(exposed));
  CHECK(exposed.empty());
}

TEST_CASE("The check of includes catches what it is for") {
  const stet::test::Scratch scratch;
  scratch.write("stet.h", "#include <stet/tensor/good.h>\n");
  scratch.write("tensor/good.h", "#include <vector>\n#include <stet/tensor/other.h>\n");
  scratch.write("nn/good.h", "// #include <stet/optim/in_a_comment.h>\n#include <stet/autograd/a.h>\n");
  CHECK(bad_arrows(scratch.path()).empty());
  CHECK(exposed_headers(scratch.path()).empty());

  scratch.write("tensor/bad.h", "#pragma once\n  #  include <stet/autograd/a.h>  // too early\n");
  scratch.write("nn/deep/bad.cpp", "#include \"../../optim/o.h\"\n");
  scratch.write("optim/o.h", "");
  scratch.write("data/bad.h", "#include <stet/nn/good.h>\n");
  scratch.write("cli/bad.cpp", "#include <stet/cuda/kernels.cuh>\n");
  scratch.write("tensor/other.h", "#include <cblas.h>\n");
  auto bad = bad_arrows(scratch.path());
  std::sort(bad.begin(), bad.end());
  CHECK(bad == std::vector<std::string>{
                   "cli/bad.cpp includes cuda/kernels.cuh: cli may not use cuda",
                   "data/bad.h includes nn/good.h: data may not use nn",
                   "nn/deep/bad.cpp includes optim/o.h: nn may not use optim",
                   "tensor/bad.h includes autograd/a.h: tensor may not use autograd",
               });
  CHECK(exposed_headers(scratch.path()) == std::vector<std::string>{"tensor/other.h: <cblas.h>"});
}
