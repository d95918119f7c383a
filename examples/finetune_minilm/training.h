// A sentence classifier over a BERT, how it is trained under one method, and how it is measured. Private to
// finetune_minilm.
#pragma once

#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <stet/stet.h>

/// What is trained; the classification head always is.
enum class Method { head, top, lora, full };
const char* name_of(Method method);
/// Learning rates that did best on the validation split of CLINC150 (docs/continual.md).
double usual_rate(Method method);

/// Texts as token ids, each at most `length` long with its [SEP], and their labels (none for texts without).
struct Encoded {
  std::vector<std::vector<std::int64_t>> ids;
  std::vector<std::int64_t> labels;
  std::vector<std::int64_t> whole;  ///< tokens of each text before it was cut
  std::int64_t padding = 0;         ///< id of [PAD]
  std::int64_t cut() const;         ///< how many texts were
  std::int64_t size() const { return static_cast<std::int64_t>(ids.size()); }
  /// (indices, T) i64, T the longest of them.
  stet::Tensor batch(const std::vector<std::int64_t>& indices) const;
  stet::Tensor batch_labels(const std::vector<std::int64_t>& indices) const;
  /// 0 .. size - 1 by length, so that little is padded.
  std::vector<std::int64_t> by_length() const;
};
Encoded encode(const stet::data::Tokenizer& tokenizer, const std::vector<std::string>& texts,
               const std::vector<std::int64_t>& labels, std::int64_t length, std::int64_t vocabulary);

/// Mean of the last layer over the tokens, then a linear layer. Sentence encoders are trained through that mean; their
/// pooler is not (MiniLM's is left over from language modelling), so the model is made without one.
struct Classifier : stet::nn::Module {
  Classifier(stet::nn::BertConfig config, std::int64_t classes);
  /// tokens (n, T) -> (n, width).
  stet::Tensor embed(const stet::Tensor& tokens);

  std::int64_t padding = 0;
  stet::nn::Bert bert;
  stet::nn::Linear head;
};

/// A Hugging Face folder of the encoder, an adapter folded in, with its tokenizer, and beside it the head
/// (head.safetensors), a name for each of its outputs (labels.txt) and how many tokens of a text it has learned to read
/// (kLengthFile).
void save(const Classifier& model, const stet::continual::Adapters& adapters, const std::vector<std::string>& labels,
          std::int64_t length, const std::filesystem::path& from, const std::filesystem::path& folder);
inline constexpr const char* kLengthFile = "length.txt";
struct Loaded {
  std::unique_ptr<Classifier> model;
  std::vector<std::string> labels;
  std::int64_t length = 0;  ///< 0: the folder does not say
};
Loaded load(const std::filesystem::path& folder);
/// The encoder of a folder; a pooler or a classifier that it has is not used.
std::pair<stet::nn::BertConfig, stet::nn::State> read_encoder(const std::filesystem::path& folder);

struct TrainingOptions {
  int epochs = 5;
  std::int64_t batch = 32;
  double rate = 0;  ///< 0: the method's usual one
};

struct Trained {
  std::int64_t parameters = 0;   ///< that were trained
  double seconds = 0;            ///< of training, the pass through a frozen prefix included
  double processor_seconds = 0;  ///< the same, of all threads together: says more where other programs run
};

/// AdamW without decay, a tenth of the steps to warm up, then half a cosine to 0, gradients clipped at norm 1. LoRA is
/// attached to `adapters`, which the caller keeps for as long as it is to act. Under `head` and `top` what is frozen
/// runs once for each example, without dropout. `report(share, text)` is called after each step.
Trained train(Classifier& model, stet::continual::Adapters& adapters, Method method, const Encoded& examples,
              const TrainingOptions& options, std::uint64_t seed,
              const std::function<void(double, const std::string&)>& report);

/// Sentence vectors (texts, width), in evaluation mode.
stet::Tensor embeddings(Classifier& model, const Encoded& texts);
/// Share of the examples whose largest output is their label.
double accuracy_of(Classifier& model, const Encoded& examples);

inline constexpr std::int64_t kNeighbours = 10;

/// How much of what the encoder knew of some texts is left in their vectors. 1 and 1: everything. NaN: not measured, or
/// nothing to measure, where all texts have one vector.
struct Kept {
  /// Linear CKA of the vectors before and after (Kornblith et al. 2019).
  double cka = std::numeric_limits<double>::quiet_NaN();
  /// Share of each text's nearest texts (cosine) that were among its nearest before.
  double neighbours = std::numeric_limits<double>::quiet_NaN();
};
/// (n, width) each, n over kNeighbours.
Kept kept(const stet::Tensor& before, const stet::Tensor& after);
