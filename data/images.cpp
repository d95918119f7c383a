// find_dataset and load_images. File names are those of MNIST:
// {train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]. Looking for a data set reads the environment at each
// call: tests and programs may change it.
#include <cstdlib>
#include <numeric>

#include <stet/data/idx.h>
#include <stet/data/images.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet::data {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kOp = "load_images";

/// The path of `name` or `name`.gz in the folder; empty if there is neither.
fs::path plain_or_gz(const fs::path& folder, const std::string& name) {
  std::error_code ignored;  // a folder that cannot be read has no data set for us
  for (const auto& candidate : {folder / name, folder / (name + ".gz")})
    if (fs::is_regular_file(candidate, ignored)) return candidate;
  return {};
}

std::vector<fs::path> data_folders() {
  std::vector<fs::path> folders;
  const auto set = [](const char* variable) {
    const char* value = std::getenv(variable);
    return value ? std::string_view(value) : std::string_view();
  };
  if (const auto own = set("STET_DATA_DIR"); !own.empty()) folders.emplace_back(own);
  if (const auto xdg = set("XDG_DATA_HOME"); !xdg.empty()) folders.push_back(fs::path(xdg) / "stet/datasets");
  else if (const auto home = set("HOME"); !home.empty())
    folders.push_back(fs::path(home) / ".local/share/stet/datasets");
  folders.emplace_back("/usr/share/datasets");
  return folders;
}

IdxFile load_part(const fs::path& folder, const std::string& name, std::size_t rank) {
  const fs::path path = plain_or_gz(folder, name);
  check(!path.empty(), kOp, (folder / name).string(), "[.gz]: no such file");
  IdxFile part = read_idx(path);
  check(part.shape.size() == rank, kOp, path.string(), ": found rank ", part.shape.size(), ", expected ", rank);
  return part;
}

std::vector<std::int64_t> all_of(const ImageSet& set) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(set.count));
  std::iota(indices.begin(), indices.end(), std::int64_t{0});
  return indices;
}

void check_index(std::string_view op, const ImageSet& set, std::int64_t index) {
  check(index >= 0 && index < set.count, op, "index ", index, " of a set of ", set.count, " images");
}

}  // namespace

fs::path find_dataset(std::string_view name) {
  std::string tried;
  for (const auto& root : data_folders()) {
    const fs::path folder = root / name;
    if (!plain_or_gz(folder, "train-images-idx3-ubyte").empty()) return folder;
    tried += (tried.empty() ? "" : ", ") + folder.string();
  }
  const std::string hint = name == "fashion-mnist"
                               ? "apt-get install dataset-fashion-mnist, or set STET_DATA_DIR"
                               : "set STET_DATA_DIR to the folder that contains it, or name its own folder with a /";
  fail("find_dataset", "no data set '", name, "' in ", tried, ": ", hint);
}

ImageSet load_images(std::string_view name_or_folder, Split split, std::int64_t classes) {
  const bool is_folder = name_or_folder.find('/') != std::string_view::npos;
  const fs::path folder = is_folder ? fs::path(name_or_folder) : find_dataset(name_or_folder);
  const std::string prefix = split == Split::train ? "train" : "t10k";
  IdxFile images = load_part(folder, prefix + "-images-idx3-ubyte", 3);
  IdxFile labels = load_part(folder, prefix + "-labels-idx1-ubyte", 1);

  check(images.shape[0] == labels.shape[0], kOp, folder.string(), ": found ", labels.shape[0], " ", prefix,
        " labels, expected ", images.shape[0], ", one for each image");
  for (std::size_t i = 0; i < labels.bytes.size(); ++i) {
    check(labels.bytes[i] < classes, kOp, folder.string(), ": ", prefix, " label ", i, " is ", int{labels.bytes[i]},
          ", expected 0 to ", classes - 1);
  }
  return {.count = images.shape[0],
          .height = images.shape[1],
          .width = images.shape[2],
          .classes = classes,
          .images = std::move(images.bytes),
          .labels = std::move(labels.bytes)};
}

Tensor pixels(const ImageSet& set, std::span<const std::int64_t> indices) {
  const std::int64_t size = set.height * set.width;
  Tensor out = empty({static_cast<std::int64_t>(indices.size()), size}, Device::cpu());
  float* to = out.mutable_data<float>();
  for (const auto index : indices) {
    check_index("pixels", set, index);
    const std::uint8_t* from = set.images.data() + index * size;
    for (std::int64_t i = 0; i < size; ++i) to[i] = static_cast<float>(from[i]) / 255.0f;
    to += size;
  }
  return compute::to_device(out, default_device());
}

Tensor labels(const ImageSet& set, std::span<const std::int64_t> indices) {
  Tensor out = empty({static_cast<std::int64_t>(indices.size())}, {i64, Device::cpu()});
  std::int64_t* to = out.mutable_data<std::int64_t>();
  for (const auto index : indices) {
    check_index("labels", set, index);
    *to++ = set.labels[static_cast<std::size_t>(index)];
  }
  return compute::to_device(out, default_device());
}

Tensor pixels(const ImageSet& set) { return pixels(set, all_of(set)); }
Tensor labels(const ImageSet& set) { return labels(set, all_of(set)); }

}  // namespace stet::data
