// Damaged and unsupported released folders: each gives an Error that names the file and the place, and none crashes.
#include <cstring>
#include <iostream>
#include <set>
#include <utility>

#include <stet/nn/pretrained.h>
#include <stet/nn/safetensors.h>
#include <stet/tensor/error.h>

#include "support/catch.h"
#include "support/message.h"
#include "support/scratch.h"

using namespace stet;
namespace fs = std::filesystem;

namespace {

const fs::path kGoldens = fs::path(STET_SOURCE_DIR) / "tests" / "golden" / "pretrained";

/// A copy of a golden folder, which a test may damage.
struct Folder {
  explicit Folder(const std::string& name) { fs::copy(kGoldens / name, scratch.path()); }
  test::Scratch scratch;

  std::string read(const std::string& file) const { return scratch.read(file); }
  void write(const std::string& file, const std::string& bytes) const { scratch.write(file, bytes); }
};

std::size_t files = 0;
std::set<std::string> classes;

void refuse(const std::string& kind, const Folder& folder, const std::string& file, const std::string& part) {
  const std::string message = test::message_of([&] { nn::load_pretrained(folder.scratch.path()); });
  INFO(kind << ": " << message << "\nexpected in it: " << part);
  CHECK(message.starts_with("[load_"));
  const fs::path place = file.empty() ? folder.scratch.path() : folder.scratch.path() / file;
  CHECK(message.find(place.string()) != std::string::npos);
  CHECK(message.find(part) != std::string::npos);
  ++files;
  classes.insert(kind);
}

/// config.json with one more field, or another value for one that it has.
std::string with(const std::string& config, const std::string& key, const std::string& value) {
  const std::size_t at = config.find("\"" + key + "\":");
  if (at == std::string::npos) return "{\"" + key + "\": " + value + "," + config.substr(1);
  const std::size_t end = config.find_first_of(",\n", at);
  return config.substr(0, at) + "\"" + key + "\": " + value + config.substr(end);
}

struct Field {
  const char *folder, *key, *value;
};

const Field kFields[] = {{"llama", "rope_scaling", R"({"rope_type":"llama3"})"},
                         {"llama_tied", "rope_parameters", R"({"rope_theta":77})"},
                         {"llama", "rope_theta", "\"x\""},
                         {"llama", "partial_rotary_factor", "0.5"},
                         {"llama", "rope_interleaved", "true"},
                         {"llama", "hidden_act", "\"gelu\""},
                         {"llama", "is_decoder", "true"},
                         {"llama", "is_encoder_decoder", "true"},
                         {"llama", "add_cross_attention", "true"},
                         {"llama", "quantization_config", R"({"bits":4})"},
                         {"llama", "pruned_heads", R"({"0":[1]})"},
                         {"llama", "some_new_field", "1"},
                         {"llama", "sliding_window", "4"},
                         {"llama", "model_type", "\"gemma\""},
                         {"llama", "model_type", "7"},
                         {"llama", "vocab_size", "0"},
                         {"llama", "vocab_size", "-3"},
                         {"llama", "vocab_size", "1.5"},
                         {"llama", "vocab_size", "99999999999"},
                         {"llama", "hidden_size", "null"},
                         {"llama", "num_attention_heads", "\"4\""},
                         {"llama", "num_key_value_heads", "3"},
                         {"llama", "rms_norm_eps", "-1"},
                         {"llama", "rms_norm_eps", "true"},
                         {"llama", "attention_dropout", "1"},
                         {"llama", "tie_word_embeddings", "\"yes\""},
                         {"llama", "eos_token_id", "\"</s>\""},
                         {"mistral", "sliding_window", "0"},
                         {"mistral", "sliding_window", "-4"},
                         {"mistral", "sliding_window", "2.5"},
                         {"mistral", "layer_types", R"(["full_attention"])"},
                         {"mistral_window", "layer_types", R"(["full_attention", "sliding_attention"])"},
                         {"mistral_window", "layer_types", R"(["full_attention", "full_attention"])"},
                         {"mistral", "layer_types", R"(["full_attention", "chunked_attention"])"},
                         {"qwen2_window_old", "max_window_layers", "-1"},
                         {"qwen2_window_old", "layer_types", R"(["sliding_attention", "full_attention"])"},
                         {"llama_tied", "rope_scaling", R"({"rope_type":"longrope","factor":2})"},
                         {"llama_tied", "rope_scaling", R"({"rope_type":"dynamic"})"},
                         {"llama_tied", "rope_scaling", R"({"rope_type":"dynamic","factor":2,"beta_fast":32})"},
                         {"llama_tied", "rope_scaling", R"({"rope_type":"yarn"})"},
                         {"llama_tied", "rope_scaling", R"({"rope_type":"yarn","factor":2,"beta_fast":0})"},
                         {"llama_tied", "rope_scaling", R"({"rope_type":"yarn","factor":2,"truncate":1})"},
                         {"llama_tied", "rope_scaling", R"({"rope_type":"yarn","factor":2,"attention_factor":0})"},
                         {"llama_tied", "rope_scaling", R"({"rope_type":"yarn","factor":2,"low_freq_factor":1})"},
                         {"llama_tied", "rope_scaling", R"({"rope_type":"linear"})"},
                         {"llama_tied", "rope_scaling", R"({"rope_type":"linear","factor":null})"},
                         {"llama_tied", "rope_scaling",
                          R"({"rope_type":"llama3","factor":2,"low_freq_factor":null)"
                          R"(,"high_freq_factor":4,"original_max_position_embeddings":16})"},
                         {"llama_tied", "rope_scaling",
                          R"({"type":"linear","factor":2}, "rope_parameters":{"rope_type":"linear","factor":3})"},
                         {"llama_tied", "rope_scaling", R"({"type":"linear","factor":0})"},
                         {"llama_tied", "rope_scaling", R"({"type":"linear","rope_type":"llama3","factor":2})"},
                         {"llama_tied", "rope_scaling", R"({"type":"linear","factor":2,"beta_fast":32})"},
                         {"llama_tied", "rope_scaling",
                          R"({"rope_type":"llama3","factor":2,"low_freq_factor":4)"
                          R"(,"high_freq_factor":4,"original_max_position_embeddings":16})"},
                         {"mistral", "attention_bias", "true"},
                         {"qwen2", "use_mrope", "true"},
                         {"qwen2", "attention_bias", "false"},
                         {"gpt2", "scale_attn_weights", "false"},
                         {"gpt2", "scale_attn_by_inverse_layer_idx", "true"},
                         {"gpt2", "reorder_and_upcast_attn", "true"},
                         {"gpt2", "tie_word_embeddings", "false"},
                         {"gpt2", "activation_function", "\"mish\""},
                         {"gpt2", "n_head", "3"},
                         {"bert", "position_embedding_type", "\"relative_key\""},
                         {"bert", "hidden_act", "\"silu\""},
                         {"bert", "num_attention_heads", "3"},
                         {"bert_classifier", "num_labels", "2"},
                         {"bert_classifier_plain", "id2label", R"({"0": "a", "1": "b"}, "label2id": {"a": 1, "b": 0})"},
                         {"bert_classifier", "problem_type", "\"ranking\""},
                         {"bert_classifier", "classifier_dropout", "1.5"},
                         {"bert_classifier", "attention_probs_dropout_prob", "1"},
                         {"bert_classifier", "classifier_dropout", "\"x\""},
                         {"bert_classifier", "num_labels", "0"},
                         {"bert_classifier_plain", "id2label", "{}"},
                         {"bert_classifier_plain", "id2label", "2"},
                         {"bert_classifier_plain", "id2label", R"({"0": "a" , "2": "b"})"},
                         {"bert_classifier_plain", "id2label", R"({"x": "a"})"},
                         {"bert_classifier_plain", "id2label", R"({"0x": "a"})"},
                         {"bert_classifier_plain", "id2label", R"({"-1": "a"})"},
                         {"bert_classifier_plain", "id2label", R"({"0": 7})"}};

/// Sizes that the weights do not have.
const Field kSizes[] = {{"llama", "vocab_size", "20"},
                        {"llama", "intermediate_size", "16777216"},
                        {"llama", "num_hidden_layers", "1"},
                        {"llama", "num_hidden_layers", "16777216"},
                        {"llama", "num_hidden_layers", "3"},
                        {"llama", "head_dim", "16"},
                        {"gpt2", "n_positions", "10"},
                        {"gpt2", "n_inner", "8"},
                        {"bert", "type_vocab_size", "3"},
                        {"bert", "max_position_embeddings", "16777216"},
                        {"bert", "intermediate_size", "13"},
                        {"llama", "attention_bias", "true"},
                        {"bert_classifier_plain", "num_labels", "3"},
                        {"bert_classifier", "max_position_embeddings", "8"},
                        {"llama", "num_key_value_heads", "4"}};

}  // namespace

TEST_CASE("A field that changes the result, or has a value out of range, is refused by key") {
  for (const Field& f : kFields) {
    const Folder folder(f.folder);
    folder.write("config.json", with(folder.read("config.json"), f.key, f.value));
    refuse(std::string("field ") + f.key + " " + f.value, folder, "config.json", f.key);
  }
}

TEST_CASE("Sizes that the weights do not have are refused before they are allocated") {
  for (const Field& f : kSizes) {
    const Folder folder(f.folder);
    folder.write("config.json", with(folder.read("config.json"), f.key, f.value));
    refuse(std::string("size ") + f.key + " " + f.value, folder, "model.safetensors", "");
  }
}

TEST_CASE("Every truncation of config.json and of an index is refused, and files that are missing") {
  const Folder folder("llama_shards");
  for (const std::string file : {"config.json", "model.safetensors.index.json"}) {
    const std::string whole = folder.read(file);
    for (std::size_t size = 0; size + 1 < whole.size(); size += 3) {
      folder.write(file, whole.substr(0, size));
      refuse("truncated " + file, folder, file, "not JSON");
    }
    fs::remove(folder.scratch.path() / file);
    const bool config = file == "config.json";
    refuse("missing " + file, folder, config ? file : "", config ? "found no file" : "found no model.safetensors");
    folder.write(file, whole);
  }
}

TEST_CASE("A damaged generation_config.json is refused by key") {
  for (const auto& [text, part] :
       std::vector<std::pair<std::string, std::string>>{{"", "not JSON"},
                                                        {R"({"eos_token_id": "x"})", "eos_token_id"},
                                                        {R"({"eos_token_id": [1, -1]})", "eos_token_id"}}) {
    const Folder folder("llama");
    folder.write("generation_config.json", text);
    refuse("generation_config " + part, folder, "generation_config.json", part);
  }
}

TEST_CASE("A damaged index is refused by tensor") {
  const auto change = [&](const std::string& kind, const std::string& to, const std::string& part) {
    const Folder folder("llama_shards");
    std::string index = folder.read("model.safetensors.index.json");
    const std::size_t at = index.find("\"model.norm.weight\": "), end = index.find('\n', at);
    REQUIRE(at != std::string::npos);
    const bool comma = index[end - 1] == ',';
    index.replace(at, end - at, to + (comma ? "," : ""));
    folder.write("model.safetensors.index.json", index);
    refuse(kind, folder, "model.safetensors.index.json", part);
  };
  change("index: no such shard", R"("model.norm.weight": "model-9.safetensors")", "found no file");
  change("index: a name too long", "\"model.norm.weight\": \"" + std::string(300, 'x') + ".safetensors\"",
         "found no file");
  change("index: wrong shard", R"("model.norm.weight": "model-00001-of-00004.safetensors")", "found no such tensor");
  change("index: another folder", R"("model.norm.weight": "../model.safetensors")", "expected a .safetensors file");
  change("index: not a string", R"("model.norm.weight": 4)", "expected a string");
  change("index: no such tensor", R"("model.nome.weight": "model-00001-of-00004.safetensors")", "found no such tensor");
}

TEST_CASE("An index that leaves a tensor of its files out is refused") {
  const Folder folder("llama_shards");
  std::string index = folder.read("model.safetensors.index.json");
  const std::size_t at = index.find("\"lm_head.weight\": "), end = index.find('\n', at);
  REQUIRE(at != std::string::npos);
  folder.write("model.safetensors.index.json", index.erase(at, end - at));
  refuse("index: a tensor left out", folder, "model.safetensors.index.json", "that its files hold");
}

TEST_CASE("Every truncation of the weights is refused") {
  const Folder folder("llama_shards");
  const std::string file = "model-00001-of-00004.safetensors", whole = folder.read(file);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    folder.write(file, whole.substr(0, size));
    refuse("truncated weights", folder, file, "");
  }
}

TEST_CASE("Weights that do not fit the model are refused by name") {
  const auto change = [](const std::string& kind, const std::string& from, const std::string& part, auto&& edit) {
    const Folder folder(from);
    nn::State state = nn::load_safetensors(folder.scratch.path() / "model.safetensors");
    edit(state);
    nn::save_safetensors(folder.scratch.path() / "model.safetensors", state);
    refuse(kind, folder, "model.safetensors", part);
  };
  const DefaultDevice cpu(Device::cpu());
  change("weights: no classifier", "bert_classifier", "classifier.weight",
         [](auto& s) { s.erase("classifier.weight"); });
  change("weights: a classifier of other labels", "bert_classifier", "expected (3, 8) by config.json", [](auto& s) {
    s["classifier.weight"] = ones({2, 8});
  });
  change("weights: a classifier without a pooler", "bert_classifier", "missing: bert.pooler.dense.bias", [](auto& s) {
    s.erase("bert.pooler.dense.weight");
    s.erase("bert.pooler.dense.bias");
  });
  change("weights: half a pooler", "bert", "missing: pooler.dense.bias", [](auto& s) { s.erase("pooler.dense.bias"); });
  change("weights: missing", "llama", "missing: model.norm.weight", [](auto& s) { s.erase("model.norm.weight"); });
  change("weights: unexpected", "llama", "unexpected: model.x", [](auto& s) { s["model.x"] = ones({1}); });
  change("weights: mismatched", "llama", "mismatched: model.norm.weight",
         [](auto& s) { s["model.norm.weight"] = ones({9}); });
  change("weights: integers", "llama", "has dtype i64",
         [](auto& s) { s["model.norm.weight"] = ones({8}, {DType::i64}); });
  change("weights: no embedding", "llama", "found no \"model.embed_tokens.weight\"",
         [](auto& s) { s.erase("model.embed_tokens.weight"); });
  change("weights: another tied output", "gpt2", "lm_head.weight", [](auto& s) {
    s["lm_head.weight"] = ones({19, 8});
  });
  change("weights: a name twice", "gpt2", "under two names", [](auto& s) { s["ln_f.bias"] = ones({8}); });
  change("weights: a vector for a matrix", "gpt2", "c_attn.weight is (8,), the model has (8, 24)",
         [](auto& s) { s["transformer.h.1.attn.c_attn.weight"] = ones({8}); });
}

TEST_CASE("Damaged llama2.c exports are refused") {
  const test::Scratch scratch;
  std::int32_t header[] = {4, 6, 1, 2, 1, 5, 3};
  const auto bytes_of = [&] {
    std::string bytes(sizeof header, '\0');
    std::memcpy(bytes.data(), header, sizeof header);
    return bytes;
  };
  constexpr std::size_t kFloats = 5 * 4 + 4 + (2 * 4 + 2 * 16 + 2 * 8 + 3 * 24) + 3 * 2;
  const std::string good = bytes_of() + std::string(4 * kFloats, '\0');
  CHECK(nn::load_llama2c(scratch.write("good.bin", good))->config().vocab_size == 5);
  const auto refuse_bytes = [&](const std::string& kind, const std::string& bytes, const std::string& part) {
    const auto file = scratch.write("bad.bin", bytes);
    const std::string message = test::message_of([&] { nn::load_llama2c(file); });
    INFO(message);
    CHECK(message.starts_with("[load_llama2c] " + file.string()));
    CHECK(message.find(part) != std::string::npos);
    ++files;
    classes.insert(kind);
  };
  for (std::size_t size = 0; size < good.size(); ++size)
    refuse_bytes("llama2.c: truncated", good.substr(0, size), size < 28 ? "expected a header" : "by the header");
  refuse_bytes("llama2.c: too long", good + "x", "by the header");
  constexpr const char* names[] = {"dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"};
  for (std::size_t i = 0; i < 7; ++i)
    for (const std::int32_t bad : {0, INT32_MIN, INT32_MAX}) {
      const std::int32_t kept = std::exchange(header[i], bad);
      refuse_bytes(std::string("llama2.c: ") + names[i], bytes_of() + good.substr(28), names[i]);
      header[i] = kept;
    }
  header[3] = 3;
  refuse_bytes("llama2.c: heads that do not divide", bytes_of() + good.substr(28), "n_heads at byte 12");
}

TEST_CASE("Enough kinds of damage were tried") {
  std::cout << "pretrained: " << files << " damaged folders and files of " << classes.size() << " kinds refused\n";
  CHECK(files >= 250);
  CHECK(classes.size() >= 40);
}
