// Weight files in the safetensors format: an 8-byte header length, a JSON header, the tensors' bytes. Reading
// is strict and holds no code; nothing is allocated before it is checked against the size of the file.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <stet/nn/module.h>

namespace stet::nn {

/// The header's "__metadata__": free text by key.
using Metadata = std::map<std::string, std::string>;

/// Replaces `path` as a whole or not at all: written beside it (PATH.tmp-PROCESS-NUMBER), synced, renamed, and the
/// directory synced. What a process that was ended while it wrote has left there goes with the next write. An
/// Error names file and tensor and leaves the old file as it was. Tensors stand in order of falling element
/// size, then name, so that each is aligned; the header is padded with spaces to a multiple of 8. What is on
/// another device or has strides is written piece by piece, without a copy of the tensor.
void save_safetensors(const std::filesystem::path& path, const State& state, const Metadata& metadata = {});

/// Replaces any file in the same way by these bytes; an Error names `op` and the file.
void replace_file(const std::filesystem::path& path, std::string_view bytes, std::string_view op);

/// Every tensor of the file. All or nothing: an Error names file, tensor, byte offset, what was found and
/// what was expected. Refused beyond the format's own rules: duplicate keys, gaps, numbers that are not plain
/// non-negative integers, more than 65,536 tensors, rank over 8, names that are empty, over 256 bytes, start
/// with '/' or hold control characters or a ".." component, and the dtypes that stet has not;
/// F16 becomes f32.
State load_safetensors(const std::filesystem::path& path, Metadata* metadata = nullptr);

/// A model's parameters and buffers to a file and back. Strict loading lists all missing, unexpected and
/// mismatched names in one Error; otherwise what fits is loaded and the names left out are returned. The
/// dtypes are the model's. Saving makes no copy of them; loading reads the whole file first, so that a file
/// that cannot be read to its end leaves the model as it was.
void save(const Module& module, const std::filesystem::path& path);
std::vector<std::string> load(Module& module, const std::filesystem::path& path, bool strict = true);

}  // namespace stet::nn
