// Weight files: writing through a temporary file that replaces the old one.
#include <stet/nn/safetensors.h>

#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include <stet/nn/safetensors_header.h>
#include <stet/nn/weight_file.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

using safetensors::as_json;
using safetensors::Entry;

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
    const Tensor value = state.at(e.name).detach();
    const bool as_it_is = value.device() == Device::cpu() && value.is_contiguous();
    each_piece(value, as_it_is ? value.numel() : kPieceBytes / size_of(e.dtype), [&](const Tensor& piece, auto) {
      const Tensor here = compute::to_device(compute::contiguous(piece), Device::cpu());
      out.write(here.raw(), static_cast<std::uint64_t>(here.bytes()));
    });
  }
  out.commit();
}

void save(const Module& module, const std::filesystem::path& path) { save_safetensors(path, module.shared_state()); }

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
