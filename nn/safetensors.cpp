// Weight files: reading through the checked header, writing through a temporary file that replaces the old
// one.
#include <stet/nn/safetensors.h>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include <stet/nn/safetensors_header.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

using safetensors::as_json;
using safetensors::Entry;
using safetensors::Header;

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

/// A file descriptor that closes itself.
class File {
 public:
  File(const std::filesystem::path& path, int flags, mode_t mode = 0)
      : fd_(open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }

 private:
  int fd_;
};

// --- reading
// ---------------------------------------------------------------------------------------------------

void read_exactly(const File& in, const std::string& file, void* target, std::uint64_t bytes, std::uint64_t offset) {
  auto* at = static_cast<char*>(target);
  while (bytes > 0) {
    const ssize_t got = pread(in.fd(), at, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    check(got >= 0, "load_safetensors", file, ": reading at byte ", offset, ": ", std::strerror(errno));
    check(got > 0, "load_safetensors", file, ": the file ended at byte ", offset, " while it was read, expected ",
          bytes, " more bytes");
    at += got;
    bytes -= static_cast<std::uint64_t>(got);
    offset += static_cast<std::uint64_t>(got);
  }
}

/// IEEE 754 half precision, all of whose values f32 has.
float from_half(std::uint16_t bits) {
  const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 0) return std::bit_cast<float>(sign | 0x3f800000u) * static_cast<float>(fraction) * 0x1p-24f;
  return std::bit_cast<float>(sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13);
}

Tensor read_halves(const File& in, const std::string& file, const Entry& e, std::uint64_t offset) {
  std::vector<std::uint16_t> halves((e.end - e.begin) / 2);
  read_exactly(in, file, halves.data(), e.end - e.begin, offset);
  const Tensor out = empty(e.shape, {DType::f32, Device::cpu()});
  std::transform(halves.begin(), halves.end(), out.mutable_data<float>(), from_half);
  return out;
}

Tensor read_tensor(const File& in, const std::string& file, const Entry& e, std::uint64_t offset) {
  if (e.half && e.end != e.begin) return read_halves(in, file, e, offset);
  const Tensor out = empty(e.shape, {e.dtype, Device::cpu()});
  if (e.end == e.begin) return out;
  auto* bytes = static_cast<unsigned char*>(out.raw_mutable());
  read_exactly(in, file, bytes, e.end - e.begin, offset);
  if (e.dtype == DType::boolean)
    for (std::uint64_t i = 0; i < e.end - e.begin; ++i)
      check(bytes[i] <= 1, "load_safetensors", file, ": ", as_json(e.name), " at byte ", offset + i, ": found ",
            int{bytes[i]}, ", expected 0 or 1 in a BOOL tensor");
  return out;
}

std::uint64_t file_size(const File& in, const std::string& file) {
  check(in.is_open(), "load_safetensors", file, ": cannot be opened: ", std::strerror(errno));
  struct stat status {};
  check(fstat(in.fd(), &status) == 0, "load_safetensors", file, ": ", std::strerror(errno));
  check(S_ISREG(status.st_mode), "load_safetensors", file, ": found something that is not a regular file");
  return static_cast<std::uint64_t>(status.st_size);
}

// --- writing
// ---------------------------------------------------------------------------------------------------

constexpr std::string_view kBeside = ".tmp-";  // TARGET.tmp-PROCESS-NUMBER: a file on its way to TARGET

/// Removes what processes that were ended while they wrote `target` have left beside it. A file that is being written
/// is locked by its writer, so this holds for other containers and hosts, whose process numbers say nothing here.
void remove_abandoned(const std::filesystem::path& target) {
  const std::string start = target.filename().string() + std::string(kBeside);
  const auto folder = target.has_parent_path() ? target.parent_path() : std::filesystem::path(".");
  std::error_code ended;
  for (std::filesystem::directory_iterator at(folder, ended), end; !ended && at != end; at.increment(ended)) {
    const std::string name = at->path().filename().string();
    if (!name.starts_with(start) || name.find_first_not_of("0123456789-", start.size()) != name.npos) continue;
    const File file(at->path(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK);
    if (file.is_open() && flock(file.fd(), LOCK_EX | LOCK_NB) == 0) unlink(at->path().c_str());
  }
}

/// A new file beside the target, removed unless it took the target's place.
class Replacement {
 public:
  Replacement(const std::filesystem::path& target, std::string_view op) : op_(op), target_(target) {
    remove_abandoned(target);
    do {
      path_ = beside(target);
      file_.emplace(path_, O_WRONLY | O_CREAT | O_EXCL, 0666);
      step(file_->is_open(), "creating a file beside it");
      exists_ = true;
      flock(file_->fd(), LOCK_EX);
    } while (is_unlinked());  // by another writer, which saw it before it was locked
  }
  ~Replacement() {
    if (exists_) unlink(path_.c_str());
  }
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  void write(const void* data, std::uint64_t bytes) {
    const auto* at = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t put = ::write(file_->fd(), at, bytes);
      if (put < 0 && errno == EINTR) continue;
      step(put > 0, "writing");
      at += put;
      bytes -= static_cast<std::uint64_t>(put);
    }
  }
  /// The order matters: data, then name, then the directory that holds the name. A failed sync is never
  /// retried, since the system may have dropped the data. The file stays open, and so locked, until it has its name.
  void commit() {
    step(fsync(file_->fd()) == 0, "syncing");
    step(std::rename(path_.c_str(), target_.c_str()) == 0, "renaming the new file to it");
    exists_ = false;
    const auto folder = target_.has_parent_path() ? target_.parent_path() : std::filesystem::path(".");
    const File directory(folder, O_RDONLY | O_DIRECTORY);
    const bool synced = directory.is_open() && (fsync(directory.fd()) == 0 || errno == EINVAL);  // EINVAL: cannot be
    check(synced, op_, target_.string(), ": syncing its directory: ", std::strerror(errno));
  }

 private:
  static std::filesystem::path beside(const std::filesystem::path& target) {
    static std::atomic<unsigned> number{0};
    auto name = target.filename();
    name += std::string(kBeside) + std::to_string(getpid()) + "-" + std::to_string(++number);
    return target.parent_path() / name;
  }
  bool is_unlinked() const {
    struct stat status {};
    return fstat(file_->fd(), &status) == 0 && status.st_nlink == 0;
  }
  void step(bool ok, std::string_view what) const {
    const int reason = errno;
    check(ok, op_, target_.string(), ": ", what, ": ", std::strerror(reason), " (what stood there is unchanged)");
  }

  std::string_view op_;
  std::filesystem::path target_, path_;
  std::optional<File> file_;
  bool exists_ = false;
};

std::vector<Entry> lay_out(const std::string& file, const State& state) {
  std::vector<Entry> entries;
  for (const auto& [name, value] : state) {
    const auto problem = safetensors::name_problem(name);
    check(!problem, "save_safetensors", file, ": a tensor's name ", as_json(name.substr(0, 300)), " ",
          problem.value_or(""));
    check(value.defined(), "save_safetensors", file, ": ", as_json(name), " is undefined");
    Entry& e = entries.emplace_back();
    e.name = name;
    e.dtype = value.dtype();
    e.shape = value.shape();
  }
  check(entries.size() <= safetensors::kTensorCap, "save_safetensors", file, ": found ", entries.size(),
        " tensors, expected at most ", safetensors::kTensorCap);
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return size_of(a.dtype) > size_of(b.dtype); });
  std::uint64_t end = 0;
  for (Entry& e : entries) {
    e.begin = end;
    end += static_cast<std::uint64_t>(state.at(e.name).bytes());
    e.end = end;
  }
  return entries;
}

std::string header_text(const std::vector<Entry>& entries, const Metadata& metadata) {
  std::string text = "{";
  const auto separate = [&] {
    if (text.back() != '{') text += ',';
  };
  if (!metadata.empty()) {
    text += as_json(safetensors::kMetadataKey) + ":{";
    for (const auto& [key, value] : metadata) {
      separate();
      text += as_json(key) + ":" + as_json(value);
    }
    text += '}';
  }
  for (const Entry& e : entries) {
    separate();
    text += as_json(e.name) + ":{\"dtype\":\"" + std::string(safetensors::format_name(e.dtype)) + "\",\"shape\":[";
    for (int i = 0; i < e.shape.size(); ++i) text += (i ? "," : "") + std::to_string(e.shape[i]);
    text += "],\"data_offsets\":[" + std::to_string(e.begin) + "," + std::to_string(e.end) + "]}";
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

void replace_file(const std::filesystem::path& path, std::string_view bytes, std::string_view op) {
  Replacement out(path, op);
  out.write(bytes.data(), bytes.size());
  out.commit();
}

void save_safetensors(const std::filesystem::path& path, const State& state, const Metadata& metadata) {
  const std::string file = path.string();
  const std::vector<Entry> entries = lay_out(file, state);
  const std::string text = header_text(entries, metadata);
  check(text.size() <= safetensors::kHeaderCap, "save_safetensors", file, ": found a header of ", text.size(),
        " bytes, expected at most ", safetensors::kHeaderCap);
  Replacement out(path, "save_safetensors");
  const std::uint64_t length = text.size();
  out.write(&length, sizeof length);
  out.write(text.data(), text.size());
  for (const Entry& e : entries) {
    Tensor value = compute::contiguous(state.at(e.name));
    if (value.device() != Device::cpu()) value = compute::to_device(value, Device::cpu());
    if (value.numel()) out.write(value.raw(), static_cast<std::uint64_t>(value.bytes()));
  }
  out.commit();
}

State load_safetensors(const std::filesystem::path& path, Metadata* metadata) {
  constexpr std::string_view op = "load_safetensors";
  const std::string file = path.string();
  const File in(path, O_RDONLY | O_NONBLOCK);  // a pipe without a writer is refused, not waited for
  const std::uint64_t size = file_size(in, file);
  std::uint64_t length = 0;
  check(size >= sizeof length, op, file, ": found ", size, " bytes, expected at least 8 for the header's length");
  read_exactly(in, file, &length, sizeof length, 0);
  check(length >= 2 && length <= safetensors::kHeaderCap, op, file, ": found a header length of ", length,
        " at byte 0, expected 2 to ", safetensors::kHeaderCap);
  check(length <= size - sizeof length, op, file, ": found a header length of ", length,
        " at byte 0, expected at most ", size - sizeof length, ", where the file ends");
  std::string text(length, ' ');
  read_exactly(in, file, text.data(), length, sizeof length);
  const std::uint64_t start = sizeof length + length;
  Header header = safetensors::parse_header(file, text, size - start);
  State state;
  for (const Entry& e : header.entries) state.emplace(e.name, read_tensor(in, file, e, start + e.begin));
  if (metadata) *metadata = std::move(header.metadata);
  return state;
}

void save(const Module& module, const std::filesystem::path& path) { save_safetensors(path, module.state()); }

std::vector<std::string> load(Module& module, const std::filesystem::path& path, bool strict) {
  const State state = load_safetensors(path);
  try {
    return module.load(state, strict);
  } catch (const Error& error) {
    std::string reason = error.what();
    if (reason.starts_with("[load] ")) reason.erase(0, 7);
    fail("load", path.string(), ": ", reason);
  }
}

}  // namespace stet::nn
