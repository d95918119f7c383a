// Adapts a released language model to documents of one's own, and shows what it learns and what it forgets. Run:
//   build/release/examples/finetune_pretrained MODEL_DIR --text DOCUMENTS.txt --general GENERAL.txt --out DIR
//     [--method lora|full|top] [--replay 0.1] [--merge] [--help]
// MODEL_DIR is what examples/generate reads. DOCUMENTS.txt is to be learned, GENERAL.txt is what the model shall still
// know: it is measured, and with --replay a share of every batch. The end of both is held out. --out receives an
// adapter in PEFT's format (LoRA), or with --merge, full or top a model folder; `generate` and transformers read
// either.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <utility>

#include <CLI/CLI.hpp>

#include <stet/stet.h>

#include "checks.h"
#include "model_folder.h"

using namespace stet;
namespace fs = std::filesystem;

namespace {

struct Arguments {
  std::string model, text, general, out, method = "lora";
  std::int64_t rank = 8, top = 2, batch = 8, length = 128, steps = 200, windows = 64;
  double replay = 0, rate = 0;
  std::uint64_t seed = 1;
  int threads = 0;
  bool merge = false;
};

void describe(CLI::App& app, Arguments& a) {
  app.option_defaults()->always_capture_default();
  app.add_option("MODEL", a.model, "a Hugging Face folder, or a llama2.c .bin with its tokenizer beside it")
      ->required();
  app.add_option("--text", a.text, "the documents to learn")->required();
  app.add_option("--general", a.general, "a text that the model shall not forget")->required();
  app.add_option("--out", a.out, "folder for the result")->required();
  app.add_option("--method", a.method,
                 "lora: adapters on every linear layer; full: all parameters; top: the last blocks")
      ->check(CLI::IsMember({"lora", "full", "top"}));
  app.add_option("--rank", a.rank, "of LoRA; alpha is twice that")->check(at_least(1));
  app.add_option("--top", a.top, "how many of the last blocks `top` trains")->check(at_least(1));
  app.add_option("--replay", a.replay, "share of the sequences that come from the general text")
      ->check(CLI::Range(0., 1.) & at_least(0));
  app.add_option("--rate", a.rate, "learning rate; 0: 1e-3 for lora, 1e-4 otherwise")->check(at_least(0));
  app.add_option("--steps", a.steps, "optimizer steps")->check(at_least(1));
  app.add_option("--batch", a.batch, "sequences in a step")->check(at_least(1));
  app.add_option("--length", a.length, "tokens of a sequence")->check(CLI::Range(2, 1 << 20));
  app.add_option("--windows", a.windows, "held-out sequences to measure on")->check(at_least(1));
  app.add_option("--seed", a.seed, "of windows and adapters")->check(whole_number());
  app.add_option("--threads", a.threads, "threads; 0: one for each core")->check(CLI::Range(0, 256));
  app.add_flag("--merge", a.merge, "lora: writes the whole model with the adapter folded in");
}

/// A language model without its type.
struct Model {
  nn::Pretrained pretrained;
  std::function<Tensor(const Tensor&)> forward;
  std::int64_t blocks = 0, positions = 0, vocabulary = 0;
  std::string stack;  // path of the blocks

  explicit Model(const fs::path& path) : pretrained(nn::load_pretrained(path)) {
    if (auto* gpt2 = std::get_if<std::unique_ptr<nn::Gpt2>>(&pretrained.model)) {
      const nn::Gpt2Config& c = (*gpt2)->config();
      take(**gpt2, c.n_layer, c.n_positions, c.vocab_size, "transformer.h.");
    } else if (auto* llama = std::get_if<std::unique_ptr<nn::Llama>>(&pretrained.model)) {
      const nn::LlamaConfig& c = (*llama)->config();
      take(**llama, c.num_hidden_layers, c.max_position_embeddings, c.vocab_size, "model.layers.");
    } else {
      fail("finetune_pretrained", path.string(), ": a ", pretrained.model_type, " model predicts no next token");
    }
  }
  nn::Module& module() const { return pretrained.module(); }

 private:
  template <class M>
  void take(M& model, std::int64_t count, std::int64_t longest, std::int64_t tokens, std::string path) {
    forward = [&model](const Tensor& ids) { return model(ids); };
    blocks = count;
    positions = longest;
    vocabulary = tokens;
    stack = std::move(path);
  }
};

struct Text {
  std::vector<std::int64_t> train;
  Tensor held_out;  // windows
};

Text read(const fs::path& path, const data::Tokenizer& tokenizer, const Arguments& a, std::int64_t vocabulary) {
  const data::Text text = data::load_text(path);
  const data::EncodeOptions plain{.add_special_tokens = false, .parse_special_tokens = false};
  Text out{tokenizer.encode(text.train, plain), {}};
  const auto held_out = tokenizer.encode(text.held_out, plain);
  for (const std::vector<std::int64_t>* part : {&std::as_const(out.train), &held_out}) {
    check(std::ssize(*part) >= a.length, "finetune_pretrained", path.string(), ": ", part->size(),
          " tokens in one part, fewer than one sequence of ", a.length);
    const std::int64_t most = *std::max_element(part->begin(), part->end());
    check(most < vocabulary, "finetune_pretrained", path.string(), ": the tokenizer made id ", most,
          ", the model knows ", vocabulary);
  }
  out.held_out = data::even_token_windows(held_out, a.windows, a.length);
  return out;
}

/// Mean nats a token.
double loss_on(const Model& model, const Tensor& windows, std::int64_t batch) {
  const NoGrad no_grad;
  const nn::EvalScope evaluation(model.module());
  double total = 0;
  for (std::int64_t at = 0, all = windows.shape()[0]; at < all; at += batch) {
    const Tensor part = contiguous(slice(windows, 0, at, std::min(at + batch, all)));
    total += nn::next_token_loss(model.forward(part), part, {.reduction = nn::Reduction::sum}).item();
  }
  return total / static_cast<double>(windows.shape()[0] * (windows.shape()[1] - 1));
}

/// Decides what is trainable: by the method, and for nothing else.
void choose(const Arguments& a, const Model& model, continual::Adapters& adapters) {
  if (a.method == "lora") {
    adapters.attach("domain", continual::LoraOptions{.targets = {model.stack + "*"},
                                                     .rank = a.rank,
                                                     .alpha = 2 * static_cast<double>(a.rank),
                                                     .fan_in_fan_out = model.pretrained.model_type == "gpt2"});
    adapters.freeze_base();
  } else if (a.method == "top") {
    check(a.top <= model.blocks, "finetune_pretrained", "--top ", a.top, " of ", model.blocks, " blocks");
    model.module().freeze();
    for (std::int64_t i = model.blocks - a.top; i < model.blocks; ++i)
      model.module().unfreeze(model.stack + std::to_string(i) + ".*");
  }
}

void train(const Arguments& a, const Model& model, const Text& domain, const Text& general) {
  const double rate = a.rate > 0 ? a.rate : a.method == "lora" ? 1e-3 : 1e-4;
  optim::AdamW optimizer(model.module().trainable_parameters(), {.lr = rate, .weight_decay = 0});
  optimizer.clip_norm(1);
  const std::int64_t warm = std::min<std::int64_t>(20, a.steps / 10);
  optimizer.set_schedule(
      optim::warmup_schedule(warm, optim::cosine_schedule(std::max<std::int64_t>(1, a.steps - warm), 0.1)));
  Generator windows = Generator(a.seed).fork("windows");
  continual::ProgressLine line;
  for (std::int64_t step = 0; step < a.steps; ++step) {
    // The share adds up over the steps, so that a twentieth of eight sequences is two in five steps.
    const auto upto = [&](std::int64_t s) { return std::llround(a.replay * static_cast<double>(s * a.batch)); };
    const std::int64_t again = upto(step + 1) - upto(step);
    std::vector<Tensor> parts;
    if (again < a.batch) parts.push_back(data::random_token_windows(domain.train, a.batch - again, a.length, windows));
    if (again > 0) parts.push_back(data::random_token_windows(general.train, again, a.length, windows));
    const Tensor tokens = cat(parts, 0);
    optimizer.zero_grad();
    const Tensor loss = nn::next_token_loss(model.forward(tokens), tokens);
    loss.backward();
    optimizer.step();
    continual::check_loss(loss.item(), "finetune_pretrained", "step ", step + 1, ", learning rate ", rate, " (--rate)");
    char words[64];
    std::snprintf(words, sizeof words, "step %lld, loss %.3f", static_cast<long long>(step + 1), loss.item());
    line.update(static_cast<double>(step + 1) / static_cast<double>(a.steps), words);
  }
}

void run(const Arguments& a) {
  manual_seed(a.seed);
  const fs::path path = a.model;
  check(fs::exists(path), "finetune_pretrained", a.model, ": no such file or folder");
  check(!a.out.empty(), "finetune_pretrained", "--out is empty, expected a folder");
  continual::make_folder(a.out);
  check(!fs::is_directory(path) || !fs::equivalent(path, a.out), "finetune_pretrained", "--out ", a.out,
        " is the model's own folder: its files would be overwritten");
  check_folder("finetune_pretrained", "--out", a.out,
               a.method == "lora" && !a.merge ? Written::adapter : Written::model, folder_of(path));
  const Model model(path);
  check(a.length <= model.positions, "finetune_pretrained", "--length ", a.length, ": the model has ", model.positions,
        " positions");
  const auto tokenizer = data::load_tokenizer(folder_of(path));
  const Text domain = read(a.text, *tokenizer, a, model.vocabulary);
  const Text general = read(a.general, *tokenizer, a, model.vocabulary);
  const std::int64_t own = model.module().count();
  continual::Adapters adapters(model.module());
  choose(a, model, adapters);
  std::printf("%s: %lld parameters; %lld are trainable (%s)\n", model.pretrained.model_type.c_str(),
              static_cast<long long>(own), static_cast<long long>(model.module().count_trainable()), a.method.c_str());
  const double before[] = {loss_on(model, domain.held_out, a.batch), loss_on(model, general.held_out, a.batch)};
  check(std::isfinite(before[0] + before[1]), "finetune_pretrained", a.model, ": before any training the loss is ",
        before[0], " on the documents and ", before[1], " on the general text, expected finite numbers");
  train(a, model, domain, general);
  const double after[] = {loss_on(model, domain.held_out, a.batch), loss_on(model, general.held_out, a.batch)};
  for (const double loss : after) continual::check_loss(loss, "finetune_pretrained", "after training");
  std::printf("nats a token on held-out text (perplexity)\n");
  for (int i : {0, 1})
    std::printf("%-8s before %.4f (%.2f)   after %.4f (%.2f)   %s %+.4f\n", i == 0 ? "domain" : "general", before[i],
                std::exp(before[i]), after[i], std::exp(after[i]), i == 0 ? "learned" : "forgotten",
                i == 0 ? before[i] - after[i] : after[i] - before[i]);
  if (a.method == "lora" && !a.merge) {
    adapters.save("domain", a.out);
  } else {
    if (a.method == "lora") {
      const nn::State merged = adapters.merged_state();
      adapters.detach("domain");
      model.module().load(merged);
    }
    nn::save_pretrained(model.pretrained, a.out);
    data::copy_tokenizer(folder_of(path), a.out);
  }
  std::printf("written: %s\n", fs::absolute(a.out).lexically_normal().c_str());
}

}  // namespace

int main(int count, char** words) {
  CLI::App app("Adapts a released language model to documents, and shows what it learns and what it forgets.");
  Arguments arguments;
  describe(app, arguments);
  CLI11_PARSE(app, count, words);
  try {
    if (arguments.threads > 0) set_threads(arguments.threads);
    run(arguments);
    return finished();
  } catch (const std::exception& problem) {
    std::cerr << problem.what() << '\n';
    return 2;
  }
}
