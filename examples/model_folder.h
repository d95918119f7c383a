// Folders that hold a model with its tokenizer. Private to the examples.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include <stet/data/tokenizers/tokenizer.h>
#include <stet/tensor/error.h>

/// Where a model's tokenizer is: in its folder, or beside it where it is a file.
inline std::filesystem::path folder_of(const std::filesystem::path& model) {
  return std::filesystem::is_directory(model) ? model : std::filesystem::absolute(model).parent_path();
}

enum class Written { adapter, model };

/// Whether a file would stay in a folder and be read with what is written there: as the base of an adapter that is not
/// its own, as a tokenizer that is not the model's.
inline bool is_foreign(const std::string& name, Written what, const std::filesystem::path& source) {
  const bool of_adapter = name.starts_with("adapter_"), of_tokenizer = stet::data::is_tokenizer_file(name);
  const bool weights = name.ends_with(".safetensors") || name.ends_with(".bin") || name.ends_with(".index.json");
  const bool of_model =
      name == "config.json" || name == "generation_config.json" || (weights && !of_adapter && !of_tokenizer);
  if (what == Written::adapter) return of_model;
  if (of_model) return name != "config.json" && name != "model.safetensors";
  return of_adapter || (of_tokenizer && !std::filesystem::exists(source / name));
}

/// Whether writing there replaces such a file.
inline bool is_replaced(const std::string& name, Written what) {
  if (what == Written::adapter) return name.starts_with("adapter_");
  return name == "config.json" || name == "model.safetensors" || stet::data::is_tokenizer_file(name);
}

/// An Error where a file of `folder`, which `option` names, is foreign and not one of `own`. `source`: the folder of
/// the model whose tokenizer will be copied.
inline void check_folder(std::string_view program, std::string_view option, const std::filesystem::path& folder,
                         Written what, const std::filesystem::path& source,
                         std::initializer_list<std::string_view> own = {}) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    bool expected = !is_foreign(name, what, source);
    for (const std::string_view mine : own) expected = expected || name == mine;
    stet::check(expected, program, option, " ", folder.string(), ": found ", name, ", which does not belong to the ",
                what == Written::adapter ? "adapter" : "model",
                " that would be written beside it, expected an empty folder or an earlier result of the same kind");
  }
}
