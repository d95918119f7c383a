// Reading through the checked header.
#include <stet/nn/safetensors_reader.h>

#include <stet/tensor/error.h>

namespace stet::nn {
namespace safetensors {
namespace {

constexpr std::string_view kOp = "load_safetensors";

void check_booleans(const std::string& file, const Entry& e, const Tensor& value) {
  const auto* bytes = static_cast<const unsigned char*>(value.raw());
  for (std::uint64_t i = 0; i < e.end - e.begin; ++i)
    check(bytes[i] <= 1, kOp, file, ": ", as_json(e.name), " at byte ", e.begin + i, ": found ", int{bytes[i]},
          ", expected 0 or 1 in a BOOL tensor");
}

}  // namespace

Reader::Reader(const std::filesystem::path& path) : file_(path, kOp) {
  const std::uint64_t size = file_.size();
  std::uint64_t length = 0;
  check(size >= sizeof length, kOp, file_.name(), ": found ", size,
        " bytes, expected at least 8 for the header's length");
  file_.read(&length, sizeof length, 0);
  check(length >= 2 && length <= kHeaderCap, kOp, file_.name(), ": found a header length of ", length,
        " at byte 0, expected 2 to ", kHeaderCap);
  check(length <= size - sizeof length, kOp, file_.name(), ": found a header length of ", length,
        " at byte 0, expected at most ", size - sizeof length, ", where the file ends");
  std::string text(length, ' ');
  file_.read(text.data(), length, sizeof length);
  const std::uint64_t start = sizeof length + length;
  header_ = parse_header(file_.name(), text, size - start);
  for (Entry& e : header_.entries) {
    e.begin += start;
    e.end += start;
  }
}

void Reader::read(const Entry& e, const Tensor& target) const { file_.read(target, e.begin, e.dtype, e.half); }

bool Reader::same(const Entry& here, const Reader& other, const Entry& there) const {
  if (!(here.shape == there.shape)) return false;
  if (here.dtype != there.dtype || here.half != there.half) return same_numbers(here, other, there);
  const std::uint64_t bytes = here.end - here.begin;
  std::string a(kPieceBytes, ' '), b = a;
  for (std::uint64_t at = 0; at < bytes; at += a.size()) {
    a.resize(std::min<std::uint64_t>(a.size(), bytes - at));
    b.resize(a.size());
    file_.read(a.data(), a.size(), here.begin + at);
    other.file_.read(b.data(), b.size(), there.begin + at);
    if (a != b) return false;
  }
  return true;
}

bool Reader::same_numbers(const Entry& here, const Reader& other, const Entry& there) const {
  if (!is_floating(here.dtype) || !is_floating(there.dtype)) return false;
  const auto count = static_cast<std::uint64_t>(count_elements(kOp, here.shape));
  const std::uint64_t most = kPieceBytes / sizeof(double);
  for (std::uint64_t at = 0; at < count; at += most) {
    const auto piece = static_cast<std::int64_t>(std::min(most, count - at));
    const Tensor a = empty({piece}, {DType::f64, Device::cpu()}), b = empty({piece}, a.options());
    file_.read(a, here.begin + at * ((here.end - here.begin) / count), here.dtype, here.half);
    other.file_.read(b, there.begin + at * ((there.end - there.begin) / count), there.dtype, there.half);
    if (!std::equal(a.data<double>(), a.data<double>() + piece, b.data<double>())) return false;
  }
  return true;
}

}  // namespace safetensors

State load_safetensors(const std::filesystem::path& path, Metadata* metadata) {
  const safetensors::Reader reader(path);
  State state;
  for (const safetensors::Entry& e : reader.header().entries) {
    const Tensor value = empty(e.shape, {e.dtype, Device::cpu()});
    reader.read(e, value);
    if (e.dtype == DType::boolean) safetensors::check_booleans(path.string(), e, value);
    state.emplace(e.name, value);
  }
  if (metadata) *metadata = reader.header().metadata;
  return state;
}

}  // namespace stet::nn
