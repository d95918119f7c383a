// Every relative link of the documents leads somewhere, and a link to a line leads to the line that it names.
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "support/catch.h"
#include "support/scratch.h"

namespace fs = std::filesystem;
using namespace stet;

namespace {

std::string read(const fs::path& path) {
  std::ostringstream out;
  out << std::ifstream(path).rdbuf();
  return out.str();
}

std::vector<fs::path> documents(const fs::path& root) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() == ".md") out.push_back(entry.path());
    if (!entry.is_directory() || name.starts_with('.') || name == "build") continue;
    for (const auto& inside : fs::recursive_directory_iterator(entry.path()))
      if (inside.path().extension() == ".md") out.push_back(inside.path());
  }
  return out;
}

std::string line_of(const std::string& text, int number) {
  std::istringstream in(text);
  std::string line;
  for (int i = 0; i < number; ++i)
    if (!std::getline(in, line)) return {};
  return line;
}

/// What is wrong with one link of the document in `folder`; empty where nothing is.
std::string fault(const fs::path& folder, const std::string& label, const std::string& target) {
  if (target.find("://") != std::string::npos || target.starts_with('#')) return {};
  const std::size_t mark = target.find('#');
  const fs::path file = folder / target.substr(0, mark);
  if (!fs::exists(file)) return "'" + target + "' is not there";
  if (mark == std::string::npos || !target.substr(mark).starts_with("#L")) return {};
  const std::string line = line_of(read(file), std::stoi(target.substr(mark + 2)));
  if (line.empty()) return "'" + target + "' is an empty line, or beyond the end";
  if (!label.starts_with('`')) return {};  // words, not a name
  const std::string name = label.substr(1, label.size() - 2);
  return line.find(name.substr(0, name.find("()"))) == std::string::npos ? "'" + target + "' holds no " + name : "";
}

/// "[label](target)" in the document; a target has no space, unlike the parameters of a lambda.
int check_links(const fs::path& document) {
  const std::string text = read(document);
  int count = 0;
  for (std::size_t at = text.find("]("); at != std::string::npos; at = text.find("](", at + 1)) {
    const std::size_t open = text.rfind('[', at), close = text.find_first_of(") \n", at + 2);
    if (open == std::string::npos || close == std::string::npos || text[close] != ')' || close == at + 2) continue;
    const std::string problem =
        fault(document.parent_path(), text.substr(open + 1, at - open - 1), text.substr(at + 2, close - at - 2));
    INFO(document << ": " << problem);
    CHECK(problem.empty());
    ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("links of the documents lead where they say", "[house]") {
  int count = 0;
  for (const fs::path& document : documents(fs::path(STET_SOURCE_DIR))) count += check_links(document);
  CHECK(count > 45);
}

TEST_CASE("a link that leads elsewhere is seen", "[house]") {
  const test::Scratch folder;
  std::ofstream(folder.path() / "a.cpp") << "int one;\n\nint two;\n";
  CHECK(fault(folder.path(), "`one`", "a.cpp#L1").empty());
  CHECK(fault(folder.path(), "words", "a.cpp#L3").empty());
  CHECK(fault(folder.path(), "`one`", "a.cpp#L3") == "'a.cpp#L3' holds no one");
  CHECK(fault(folder.path(), "words", "a.cpp#L2") == "'a.cpp#L2' is an empty line, or beyond the end");
  CHECK(fault(folder.path(), "words", "a.cpp#L9") == "'a.cpp#L9' is an empty line, or beyond the end");
  CHECK(fault(folder.path(), "b", "b.cpp") == "'b.cpp' is not there");
}
