// The header's grammar as a state machine over the events of a JSON parser, which itself never recurses.
// Depth, keys and types are checked as they come, so nothing is built from a header that is refused.
#include <stet/nn/safetensors_header.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include <stet/tensor/counting_iterator.h>
#include <stet/tensor/error.h>

namespace stet::nn::safetensors {
namespace {

using nlohmann::json;

constexpr std::string_view kOp = "load_safetensors";
constexpr std::uint64_t kPrefix = 8;  // bytes before the header

struct FormatName {
  std::string_view name;
  DType dtype;
};
constexpr FormatName kFormatNames[] = {{"F64", DType::f64},     {"F32", DType::f32}, {"BF16", DType::bf16},
                                       {"I64", DType::i64},     {"I32", DType::i32}, {"U8", DType::u8},
                                       {"BOOL", DType::boolean}};

std::string supported() {
  std::string list;
  for (const FormatName& f : kFormatNames) list += (list.empty() ? "" : ", ") + std::string(f.name);
  return list + ", F16";
}

/// The parser's events. Every one is checked against the place in which it stands.
class Events final : public json::json_sax_t {
 public:
  Events(const std::string& file, const std::uint64_t& read) : file_(file), read_(read) {}

  Header header;

  bool start_object(std::size_t) override {
    if (place_ == Place::start) place_ = Place::top;
    else if (place_ == Place::value && name_ == kMetadataKey) place_ = Place::metadata;
    else if (place_ == Place::value) begin_tensor();
    else refuse("an object", expected());
    return true;
  }
  bool end_object() override {
    if (place_ == Place::tensor) finish_tensor();
    place_ = place_ == Place::top ? Place::done : Place::top;
    return true;
  }
  bool key(std::string& text) override {
    switch (place_) {
      case Place::top: top_key(text); break;
      case Place::metadata:
        if (header.metadata.contains(text)) refuse("the key " + as_json(text) + " twice", "each key once");
        metadata_key_ = text;
        place_ = Place::metadata_value;
        break;
      default: field_key(text);
    }
    return true;
  }
  bool string(std::string& text) override {
    if (place_ == Place::metadata_value) {
      header.metadata[metadata_key_] = text;
      place_ = Place::metadata;
    } else if (place_ == Place::dtype) {
      set_dtype(text);
      place_ = Place::tensor;
    } else {
      refuse("the string " + as_json(text.substr(0, 40)), expected());
    }
    return true;
  }
  bool start_array(std::size_t) override {
    if (place_ == Place::shape) place_ = Place::sizes;
    else if (place_ == Place::offsets) place_ = Place::positions;
    else refuse("an array", expected());
    return true;
  }
  bool end_array() override {
    if (place_ == Place::positions && positions_.size() != 2)
      refuse(std::to_string(positions_.size()) + " data_offsets", "2");
    place_ = Place::tensor;
    return true;
  }
  bool number_unsigned(std::uint64_t value) override {
    if (place_ != Place::sizes && place_ != Place::positions) refuse("the number " + std::to_string(value), expected());
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      refuse("the number " + std::to_string(value), "at most 2^63 - 1");
    if (place_ == Place::sizes) {
      if (entry().shape.size() == kMaxRank) refuse("more than 8 dimensions", "at most 8");
      entry().shape.push_back(static_cast<std::int64_t>(value));
    } else {
      if (positions_.size() == 2) refuse("more than 2 data_offsets", "2");
      positions_.push_back(value);
    }
    return true;
  }
  // The parser calls these for a minus sign, and for a point, an exponent or an overflow.
  bool number_integer(std::int64_t value) override {
    refuse("the number " + (value ? std::to_string(value) : std::string("-0")), expected());
  }
  bool number_float(double, const std::string& text) override {
    refuse("the number " + text.substr(0, 40), expected());
  }
  bool null() override { refuse("null", expected()); }
  bool boolean(bool value) override { refuse(value ? "true" : "false", expected()); }
  bool binary(json::binary_t&) override { refuse("binary data", expected()); }
  bool parse_error(std::size_t position, const std::string&, const json::exception& error) override {
    std::string reason = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 5: ..."
    const std::size_t end_of_place = reason.find(": ");
    if (end_of_place != std::string::npos) reason.erase(0, end_of_place + 2);
    fail(kOp, file_, ": the header is not JSON at byte ", kPrefix + (position ? position - 1 : 0), ": ", reason);
  }

 private:
  enum class Place {
    start,
    top,
    value,
    metadata,
    metadata_value,
    tensor,
    dtype,
    shape,
    sizes,
    offsets,
    positions,
    done
  };

  Entry& entry() { return header.entries.back(); }

  void top_key(const std::string& text) {
    name_ = text;
    place_ = Place::value;
    if (!names_.insert(text).second) refuse("the name twice", "each name once");
    if (text == kMetadataKey) return;
    if (const auto problem = name_problem(text)) refuse("a name that " + *problem, "a plain name of 1 to 256 bytes");
    if (header.entries.size() == kTensorCap) refuse("more than 65,536 tensors", "at most 65,536");
  }
  void begin_tensor() {
    header.entries.emplace_back().name = name_;
    positions_.clear();
    has_dtype_ = has_shape_ = has_offsets_ = false;
    place_ = Place::tensor;
  }
  void field_key(const std::string& text) {
    const auto take = [&](bool& seen, Place next) {
      if (seen) refuse("the key " + as_json(text) + " twice", "each key once");
      seen = true;
      place_ = next;
    };
    if (text == "dtype") take(has_dtype_, Place::dtype);
    else if (text == "shape") take(has_shape_, Place::shape);
    else if (text == "data_offsets") take(has_offsets_, Place::offsets);
    else refuse("the key " + as_json(text.substr(0, 40)), "dtype, shape and data_offsets");
  }
  void set_dtype(const std::string& text) {
    entry().half = text == "F16";
    if (entry().half) return;
    for (const FormatName& f : kFormatNames)
      if (f.name == text) {
        entry().dtype = f.dtype;
        return;
      }
    refuse("dtype " + as_json(text.substr(0, 40)), "one of " + supported());
  }
  void finish_tensor() {
    const std::pair<bool, const char*> fields[] = {
        {has_dtype_, "dtype"}, {has_shape_, "shape"}, {has_offsets_, "data_offsets"}};
    for (const auto& [present, field] : fields)
      if (!present) refuse(std::string("no ") + field, "dtype, shape and data_offsets");
    entry().begin = positions_[0];
    entry().end = positions_[1];
  }

  std::string expected() const {
    switch (place_) {
      case Place::start:
      case Place::value:
      case Place::top: return "an object";
      case Place::metadata:
      case Place::metadata_value:
      case Place::dtype: return "a string";
      case Place::sizes:
      case Place::positions: return "a plain non-negative integer";
      default: return "an array of plain non-negative integers";
    }
  }

  [[noreturn]] void refuse(const std::string& found, const std::string& wanted) const {
    const std::string tensor = name_.empty() && place_ != Place::value ? "the header" : as_json(name_.substr(0, 300));
    fail(kOp, file_, ": ", tensor, " near byte ", kPrefix + read_, ": found ", found, ", expected ", wanted);
  }

  const std::string& file_;
  const std::uint64_t& read_;
  Place place_ = Place::start;
  std::set<std::string> names_;
  std::string name_, metadata_key_;
  std::vector<std::uint64_t> positions_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
};

/// Product of the sizes and the element size. Sizes of 0 count as 1, so that strides cannot overflow either.
std::optional<std::uint64_t> checked_bytes(const Entry& e) {
  std::int64_t product = e.half ? 2 : size_of(e.dtype);
  bool is_empty = false;
  for (const std::int64_t size : e.shape) {
    is_empty = is_empty || size == 0;
    if (__builtin_mul_overflow(product, std::max<std::int64_t>(size, 1), &product)) return {};
  }
  return is_empty ? 0 : static_cast<std::uint64_t>(product);
}

/// The tensors must cover the data from its first byte to its last, each byte once.
void check_layout(const std::string& file, std::vector<Entry>& entries, std::uint64_t start, std::uint64_t data_bytes) {
  for (const Entry& e : entries) {
    const auto refuse = [&](const auto&... parts) {
      fail(kOp, file, ": ", as_json(e.name), " at byte ", start + e.begin, ": ", parts...);
    };
    if (e.end < e.begin) refuse("found data_offsets [", e.begin, ", ", e.end, "], expected begin <= end");
    if (e.end > data_bytes)
      refuse("found data up to byte ", e.end, " of the data, expected at most ", data_bytes, ", where the file ends");
    const auto bytes = checked_bytes(e);
    if (!bytes) refuse("found shape ", e.shape, ", expected a size below 2^63 bytes");
    if (*bytes != e.end - e.begin)
      refuse("found ", e.end - e.begin, " bytes, expected ", *bytes, " for ", e.half ? "F16" : format_name(e.dtype),
             " ", e.shape);
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t covered = 0;
  for (const Entry& e : entries) {
    check(e.begin == covered, kOp, file, ": ", as_json(e.name), " at byte ", start + e.begin, ": found ",
          e.begin > covered ? "a hole of " : "an overlap of ",
          e.begin > covered ? e.begin - covered : covered - e.begin, " bytes before it, expected data from byte ",
          start + covered);
    covered = e.end;
  }
  check(covered == data_bytes, kOp, file, ": found ", data_bytes - covered, " bytes after the last tensor at byte ",
        start + covered, ", expected the end of the file");
}

}  // namespace

std::string_view format_name(DType dtype) {
  for (const FormatName& f : kFormatNames)
    if (f.dtype == dtype) return f.name;
  fail<BugError>("safetensors", "no name for ", dtype);
}

std::optional<std::string> name_problem(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > kNameCap) return "has " + std::to_string(name.size()) + " bytes";
  for (const char c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return "holds a control character";
  if (name.front() == '/') return "starts with '/'";
  for (std::size_t at = 0; at <= name.size();) {
    const std::size_t slash = std::min(name.find('/', at), name.size());
    if (name.substr(at, slash - at) == "..") return "holds a '..' component";
    at = slash + 1;
  }
  if (name == kMetadataKey) return "belongs to the format";
  if (as_json(name).find("\xef\xbf\xbd") != std::string::npos && name.find("\xef\xbf\xbd") == std::string_view::npos)
    return "is not UTF-8";
  return {};
}

std::string as_json(std::string_view text) {
  return json(std::string(text)).dump(-1, ' ', false, json::error_handler_t::replace);
}

Header parse_header(const std::string& file, std::string_view text, std::uint64_t data_bytes) {
  check(!text.empty() && text.front() == '{', kOp, file, ": the header at byte ", kPrefix, ": found ",
        as_json(text.substr(0, 1)), ", expected '{'");
  // The parser takes a NUL for the end of its input and would pass over what follows.
  const std::size_t nul = text.find('\0');
  check(nul == std::string_view::npos, kOp, file, ": the header at byte ", kPrefix + nul,
        ": found a NUL, expected JSON");
  std::uint64_t read = 0;
  Events events(file, read);
  json::sax_parse(CountingIterator(text.data(), &read), CountingIterator(text.data() + text.size(), &read), &events);
  check_layout(file, events.header.entries, kPrefix + text.size(), data_bytes);
  return std::move(events.header);
}

}  // namespace stet::nn::safetensors
