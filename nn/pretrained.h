// Released weights: a Hugging Face folder (config.json with model.safetensors, or with shards and
// model.safetensors.index.json) as a model, and a model as such a folder; llama2.c's export.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <stet/nn/models/bert.h>
#include <stet/nn/models/gpt2.h>
#include <stet/nn/models/llama.h>

namespace stet::nn {

struct Pretrained {
  std::string model_type;  ///< as config.json names it: gpt2, llama, mistral, qwen2 (both a Llama) or bert
  std::variant<std::unique_ptr<Gpt2>, std::unique_ptr<Llama>, std::unique_ptr<Bert>, std::unique_ptr<BertClassifier>>
      model;
  /// Where a text ends: eos_token_id of generation_config.json, else of config.json, else the family's default.
  std::vector<std::int64_t> end_tokens = {};
  std::vector<std::string> left_out = {};  ///< tensors of heads that the model has not (BERT's "cls.…")

  Module& module() const;
};

/// The model on the default device, in f32, in training mode as every new model. Files may be f32, f16, bf16 or f64.
/// A field of config.json that would change the result and is not supported is an Error naming file and key, and so
/// is a field that is not known. Weights are checked against the configuration before the model is made: missing,
/// unexpected and mismatched names are an Error naming the file. GPT-2's attention masks, BERT's position_ids and
/// Llama's inv_freq are constants and passed over. A tied output that differs from the embedding is an Error. A BERT
/// whose `architectures` say BertForSequenceClassification is a BertClassifier; any other BERT is a Bert, without a
/// pooler where the file has none. Values go from the file to the model piece by piece: reading takes less than 1 MiB
/// besides the model, whatever the file's type. A file instead of a folder is llama2.c's export (load_llama2c), whose
/// texts end at its tokens 1 (<s>) and 2 (</s>).
Pretrained load_pretrained(const std::filesystem::path& folder);

/// llama2.c's legacy export (stories15M.bin, stories260K.bin): seven i32 and f32 weights. Rows of q and k are put in
/// the order of transformers' rotary embedding. The file's size must be exactly what its header asks for. Takes less
/// than 1 MiB besides the model.
std::unique_ptr<Llama> load_llama2c(const std::filesystem::path& file);

/// Writes config.json and model.safetensors, which load_pretrained and transformers read; each is replaced as a whole
/// or not at all, the weights first. The folder is made where it is missing. Adapters in the model, merged ones too,
/// are not written: the folder holds the base. Takes less than 1 MiB besides the model.
void save_pretrained(const Pretrained& model, const std::filesystem::path& folder);
/// `end_tokens` is written as eos_token_id, also into a generation_config.json that is there.
void save_pretrained(const Gpt2& model, const std::filesystem::path& folder,
                     const std::vector<std::int64_t>& end_tokens = {});
void save_pretrained(const Llama& model, const std::filesystem::path& folder,
                     const std::vector<std::int64_t>& end_tokens = {});
/// transformers reads a Bert without a pooler as BertModel with add_pooling_layer=False.
void save_pretrained(const Bert& model, const std::filesystem::path& folder);
/// An Error where two labels have one name.
void save_pretrained(const BertClassifier& model, const std::filesystem::path& folder);

}  // namespace stet::nn
