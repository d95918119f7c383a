// JsonFile: the table is filled from the events of a JSON parser, which itself never recurses.
#include <stet/tensor/json_file.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include <stet/tensor/counting_iterator.h>

namespace stet {

using nlohmann::json;

namespace {

constexpr std::uint64_t kFileCap = 1 << 30;
constexpr std::size_t kDepthCap = 32;

const char* name_of(JsonType type) {
  constexpr const char* names[] = {"null",     "true or false", "an integer", "a number",
                                   "a string", "an array",      "an object"};
  return names[static_cast<int>(type)];
}

}  // namespace

/// The parser's events as nodes.
class JsonBuilder final : public json::json_sax_t {
 public:
  JsonBuilder(JsonFile& file, const std::uint32_t& read) : file_(file), read_(read) {}

  bool null() override { return add(JsonType::null), true; }
  bool boolean(bool value) override { return add(JsonType::flag).flag = value, true; }
  bool number_integer(std::int64_t value) override { return add(JsonType::integer).integer = value, true; }
  bool number_unsigned(std::uint64_t value) override {
    if (value > INT64_MAX) add(JsonType::real).real = static_cast<double>(value);
    else add(JsonType::integer).integer = static_cast<std::int64_t>(value);
    return true;
  }
  bool number_float(double value, const std::string&) override { return add(JsonType::real).real = value, true; }
  bool string(std::string& value) override { return add_text(value), true; }
  bool binary(json::binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(JsonType::object), true; }
  bool start_array(std::size_t) override { return open(JsonType::array), true; }
  bool end_object() override {
    check_keys();
    return close();
  }
  bool end_array() override { return close(); }
  bool key(std::string& text) override {
    add_text(text);
    if (!stack_.empty()) --file_.nodes_[stack_.back()].count;  // the value counts, not its key
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const json::exception& error) override {
    std::string reason = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 5: ..."
    const std::size_t end_of_place = reason.find(": ");
    if (end_of_place != std::string::npos) reason.erase(0, end_of_place + 2);
    fail(file_.op_, file_.name_, ": not JSON at byte ", position ? position - 1 : 0, ": ", reason);
  }

 private:
  JsonFile::Node& add(JsonType type) {
    if (!stack_.empty()) ++file_.nodes_[stack_.back()].count;
    JsonFile::Node node{};
    node.type = type;
    node.offset = read_;
    node.next = static_cast<std::uint32_t>(file_.nodes_.size() + 1);
    return file_.nodes_.emplace_back(node);
  }
  void add_text(const std::string& text) {
    JsonFile::Node& node = add(JsonType::text);
    node.text = static_cast<std::uint32_t>(file_.texts_.size());
    node.text_size = text.size();
    file_.texts_ += text;
  }
  void open(JsonType type) {
    check(stack_.size() < kDepthCap, file_.op_, file_.name_, ": near byte ", read_,
          ": found values nested deeper than ", kDepthCap, ", expected no more");
    add(type);
    stack_.push_back(static_cast<std::uint32_t>(file_.nodes_.size() - 1));
  }
  bool close() {
    file_.nodes_[stack_.back()].next = static_cast<std::uint32_t>(file_.nodes_.size());
    stack_.pop_back();
    return true;
  }
  void check_keys() {
    const auto& nodes = file_.nodes_;
    const std::uint32_t object = stack_.back();
    std::unordered_set<std::string_view> keys;
    keys.reserve(nodes[object].count);
    for (std::uint32_t i = object + 1; i < nodes.size(); i = nodes[i + 1].next)
      check(keys.insert(file_.text_of(i)).second, file_.op_, file_.name_, ": near byte ", nodes[i].offset,
            ": found the key ", quoted(file_.text_of(i)), " twice, expected each key once");
  }

  JsonFile& file_;
  const std::uint32_t& read_;
  std::vector<std::uint32_t> stack_;
};

std::string read_bytes(const std::filesystem::path& path, std::string_view op) {
  std::error_code error;
  check(std::filesystem::is_regular_file(path, error), op, path.string(), ": found no file, expected one");
  const std::uint64_t size = std::filesystem::file_size(path, error);
  check(!error, op, path.string(), ": ", error.message());
  check(size <= kFileCap, op, path.string(), ": found ", size, " bytes, expected at most ", kFileCap);
  std::string bytes(size, '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(bytes.data(), static_cast<std::streamsize>(size));
  check(in.good(), op, path.string(), ": could not be read: found ", in.gcount(), " bytes, expected ", size);
  return bytes;
}

JsonFile::JsonFile(const std::filesystem::path& path, std::string_view op) : op_(op), name_(path.string()) {
  const std::string bytes = read_bytes(path, op);
  // The parser takes a NUL for the end of its input and would pass over what follows.
  const std::size_t nul = bytes.find('\0');
  check(nul == std::string::npos, op, name_, ": at byte ", nul, ": found a NUL, expected JSON");
  std::uint32_t read = 0;
  JsonBuilder builder(*this, read);
  json::sax_parse(CountingIterator(bytes.data(), &read), CountingIterator(bytes.data() + bytes.size(), &read),
                  &builder);
  check(root().type() == JsonType::object, op, name_, ": found ", name_of(root().type()), ", expected an object");
}

void JsonFile::Value::expect(JsonType wanted) const {
  if (type() != wanted) refuse("found ", shown(), ", expected ", name_of(wanted));
}

std::string JsonFile::Value::shown() const {
  switch (type()) {
    case JsonType::flag: return node().flag ? "true" : "false";
    case JsonType::integer: return std::to_string(node().integer);
    case JsonType::real: return json(node().real).dump();
    case JsonType::text: return "the string " + quoted(file_->text_of(index_));
    default: return name_of(type());
  }
}

/// model.vocab."the", model.merges[17]: from the root down, by the extents of the values.
std::string JsonFile::Value::path() const {
  const auto& nodes = file_->nodes_;
  std::string path;
  for (std::uint32_t at = 0; at != index_;) {
    const bool object = nodes[at].type == JsonType::object;
    std::uint32_t member = at + 1, number = 0;
    for (; nodes[member + object].next <= index_; member = nodes[member + object].next) ++number;
    if (object) {
      const std::string_view key = file_->text_of(member);
      const bool plain = !key.empty() && std::all_of(key.begin(), key.end(), [](unsigned char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
      });
      path += (path.empty() ? "" : ".") + (plain ? std::string(key) : quoted(key));
    } else {
      path += "[" + std::to_string(number) + "]";
    }
    at = member + object;
  }
  return path.empty() ? "the file" : path;
}

std::string_view JsonFile::Value::text() const {
  expect(JsonType::text);
  return file_->text_of(index_);
}

bool JsonFile::Value::flag() const {
  expect(JsonType::flag);
  return node().flag;
}

double JsonFile::Value::number() const {
  if (type() == JsonType::integer) return static_cast<double>(node().integer);
  expect(JsonType::real);
  return node().real;
}

std::int64_t JsonFile::Value::integer(std::int64_t low, std::int64_t high) const {
  if (type() != JsonType::integer || node().integer < low || node().integer > high)
    refuse("found ", shown(), ", expected an integer from ", low, " to ", high);
  return node().integer;
}

std::optional<JsonFile::Value> JsonFile::Value::find(std::string_view key) const {
  expect(JsonType::object);
  for (std::uint32_t i = index_ + 1; i < node().next; i = file_->nodes_[i + 1].next)
    if (file_->text_of(i) == key) return Value(file_, i + 1);
  return {};
}

std::optional<JsonFile::Value> JsonFile::Value::given(std::string_view key) const {
  const auto value = find(key);
  return value && !value->is_null() ? value : std::nullopt;
}

JsonFile::Value JsonFile::Value::at(std::string_view key) const {
  const auto value = find(key);
  if (!value) refuse("found no ", quoted(key), ", expected one");
  return *value;
}

void JsonFile::Value::expect_keys(std::initializer_list<std::string_view> known) const {
  for_each_member([&](std::string_view key, const Value& value) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      value.refuse("found a field that is not supported, expected none");
  });
}

std::string quoted(std::string_view text, bool shorten) {
  const bool cut = shorten && text.size() > 80;
  return json(std::string(cut ? text.substr(0, 77) : text)).dump(-1, ' ', false, json::error_handler_t::replace) +
         (cut ? "..." : "");
}

}  // namespace stet
