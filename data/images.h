// Labelled grey images in memory, and where data sets are looked for: STET_DATA_DIR, the user's data folder,
// then Debian's place for packaged data sets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <stet/tensor/tensor.h>

namespace stet::data {

enum class Split { train, test };

/// Images and labels of one split. `images` is (count, height, width), `labels` is (count), each below
/// `classes`.
struct ImageSet {
  std::int64_t count = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t classes = 0;
  std::vector<std::uint8_t> images;
  std::vector<std::uint8_t> labels;
};

/// The folder of an MNIST-like data set such as "fashion-mnist". Throws an Error that lists the places tried.
std::filesystem::path find_dataset(std::string_view name);

/// Loads a split of an MNIST-like data set by name ("fashion-mnist") or folder (anything with a '/'). Throws
/// unless there are as many labels as images and every label is below `classes`.
ImageSet load_images(std::string_view name_or_folder, Split split, std::int64_t classes = 10);

/// Some images of a set as f32 from 0 to 1: (indices, height * width); all of them: (count, height * width).
Tensor pixels(const ImageSet& set, std::span<const std::int64_t> indices);
Tensor pixels(const ImageSet& set);
/// Their labels as i64: (indices) or (count).
Tensor labels(const ImageSet& set, std::span<const std::int64_t> indices);
Tensor labels(const ImageSet& set);

}  // namespace stet::data
