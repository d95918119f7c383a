// How one model is pretrained, fine-tuned under one method, and measured: for finetune_domain and the claims.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <stet/stet.h>

constexpr std::int64_t kLength = 96, kBatch = 12, kWindows = 128;
constexpr double kRate = 1e-3;  // of every method that turns something else

/// How one run differs from plain fine-tuning.
struct Method {
  std::string name, strength;
  double rate = kRate;
  double replay = 0;       ///< share of the sequences that come from the general text
  double ewc = 0, l2 = 0;  ///< strength of the penalty
  int top = 0;             ///< train only the last `top` blocks and the final norm; 0: everything
  double decay = 1;        ///< of the learning rate from each block to the one below it
  std::optional<stet::continual::AdapterOptions> adapter = {};  ///< trained instead of the model
  double blend = 1;  ///< WiSE-FT: how far from the pretrained model to plain fine-tuning at kRate
};

/// Everything is learned from `train` and measured on windows of `held_out` that stay the same.
struct Corpora {
  stet::data::Text general, domain;
  stet::Tensor general_windows, domain_windows;
  std::vector<std::string> other_names = {};  ///< texts that are never trained on
  std::vector<stet::Tensor> other_windows = {};
};

/// FOLDER/NAME.txt, the last tenth held out. Throws Error that names the file where that is less than a window.
stet::data::Text read_text(const std::filesystem::path& folder, const std::string& name);
/// FOLDER/GENERAL.txt and FOLDER/DOMAIN.txt, the last tenth of each held out.
Corpora read_texts(const std::filesystem::path& folder, const std::string& general, const std::string& domain);
/// Windows of a held-out part, always the same.
stet::Tensor held_out_windows(const stet::data::Text& text, std::int64_t count = kWindows);

/// LoRA on every linear layer of the blocks, alpha twice the rank.
stet::continual::LoraOptions lora(std::int64_t rank);
/// Attaches the method's adapter, if it has one, and freezes everything else.
void attach(stet::continual::Adapters& adapters, const Method& method);

/// Nats per byte.
struct Losses {
  double general = 0, domain = 0;
  std::vector<double> others = {};  ///< of each of Corpora::other_windows; empty where they were not asked for
};

Losses measure(stet::nn::Gpt2& model, const Corpora& texts, bool others = true);

/// Fisher diagonal of the model's own distribution: one label drawn at each position (sampled Fisher), a sequence an
/// example, per byte.
stet::nn::State sampled_fisher(stet::nn::Gpt2& model, const std::string& text, std::int64_t sequences,
                               stet::Generator& generator);

/// `old` is the text that replay draws from, `importance` EWC's. `report` is called with the number of steps done
/// after each. What is trainable is the method's choice; an adapter is attached, and the base frozen, by the caller.
void train(stet::nn::Gpt2& model, const Method& method, const std::string& text, const std::string& old, int steps,
           std::uint64_t seed, const stet::nn::State& importance, const std::function<void(int)>& report);

/// WiSE-FT (Wortsman et al. 2022): the model becomes from + part (to - from).
void blend(stet::nn::Gpt2& model, const stet::nn::State& from, const stet::nn::State& to, double part);
