// A released language model without its type, texts as its tokens, and what it loses on them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <stet/stet.h>

struct LanguageModel {
  stet::nn::Pretrained pretrained;
  std::function<stet::Tensor(const stet::Tensor&)> forward;  // tokens (batch, T) -> logits
  std::int64_t blocks = 0, positions = 0, vocabulary = 0;
  std::string stack;  // path of the blocks, with a dot

  explicit LanguageModel(const std::filesystem::path& path);
  stet::nn::Module& module() const { return pretrained.module(); }

 private:
  template <class M>
  void take(M& model, std::int64_t count, std::int64_t longest, std::int64_t tokens, std::string path);
};

struct TokenText {
  std::vector<std::int64_t> train;
  std::int64_t held_out_tokens = 0;
  stet::Tensor held_out;  // (windows, length), evenly spaced, none over another
};

/// The last tenth of the file is held out, as `windows` windows or as many as there is room for. An Error where one
/// part is shorter than a sequence of `length`.
TokenText read_text(const std::filesystem::path& path, const stet::data::Tokenizer& tokenizer, std::int64_t windows,
                    std::int64_t length, std::int64_t vocabulary);

/// Mean nats a token of each window.
std::vector<double> losses_on(const LanguageModel& model, const stet::Tensor& windows, std::int64_t batch);

double mean_of(const std::vector<double>& values);
/// The mean of after - before over the windows, and its standard error; NaN of one window.
struct Change {
  double mean, error;
  bool clear() const { return mean > 2 * error || -mean > 2 * error; }
};
Change change_of(const std::vector<double>& before, const std::vector<double>& after);
