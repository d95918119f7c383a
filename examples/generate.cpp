// Text from a released language model. Run:
//   build/release/examples/generate MODEL_DIR "Once upon a time" [--tokens N] [--temperature T] [--top-k K] [--top-p P]
//                                                                [--seed S] [--adapter DIR]
// MODEL_DIR is a Hugging Face folder (GPT-2, Llama, Mistral, Qwen2, SmolLM2) with its tokenizer, or a llama2.c .bin
// with its tok*.bin beside it. Prints the prompt and what follows it; tokens and seconds go to stderr.
#include <chrono>
#include <cstdio>
#include <iostream>

#include <CLI/CLI.hpp>

#include <stet/stet.h>
#include <stet/tensor/json_file.h>

#include "checks.h"
#include "model_folder.h"

using namespace stet;

namespace {

struct Arguments {
  std::string model, prompt, adapter;
  nn::GenerateOptions options{.seed = 1};
};

void describe(CLI::App& app, Arguments& a) {
  app.option_defaults()->always_capture_default();
  app.add_option("MODEL", a.model, "a Hugging Face folder, or a llama2.c .bin with its tokenizer beside it")
      ->required();
  app.add_option("PROMPT", a.prompt, "the text to go on from")->required();
  app.add_option("--tokens", a.options.max_new_tokens, "tokens to make");
  app.add_option("--temperature", a.options.temperature, "0: the most probable token each time");
  app.add_option("--top-k", a.options.top_k, "with a temperature: draws from the K most probable tokens; 0: all");
  app.add_option("--top-p", a.options.top_p,
                 "with a temperature: draws from the fewest tokens with this probability together");
  app.add_option("--adapter", a.adapter, "a folder that PEFT or finetune_pretrained wrote: the model is used with it");
  app.add_option("--seed", a.options.seed, "with a temperature: another text for each")->check(whole_number());
}

/// Draws that are asked for without a temperature would not take place.
void check_use(const CLI::App& app, const Arguments& a) {
  for (const char* option : {"--top-k", "--top-p", "--seed"})
    check(app.count(option) == 0 || a.options.temperature != 0, "generate", option,
          " says how to draw tokens, and at temperature 0 none are drawn: expected --temperature, 1 say");
}

/// An adapter fits every model of the same shapes, and means something to one of them.
void note_other_base(const std::filesystem::path& adapter, const std::filesystem::path& model) {
  const JsonFile config(adapter / "adapter_config.json", "generate");
  const auto base = config.root().given("base_model_name_or_path");
  std::error_code unknown;  // a folder that is not here says nothing
  if (base && base->type() == JsonType::text && std::filesystem::exists(base->text(), unknown) &&
      !std::filesystem::equivalent(base->text(), model, unknown))
    std::cerr << "note: the adapter was made for " << base->text() << ", not for " << model.string() << '\n';
}

void run(Arguments arguments) {
  const std::filesystem::path path = arguments.model;
  check(std::filesystem::exists(path), "generate", path.string(), ": no such file or folder");
  const nn::Pretrained model = nn::load_pretrained(path);
  continual::Adapters adapters(model.module());
  if (!arguments.adapter.empty()) {
    adapters.load("adapter", arguments.adapter);
    note_other_base(arguments.adapter, path);
    const auto kind = adapters.options("adapter");
    if (!std::holds_alternative<continual::BottleneckOptions>(kind)) adapters.merge();  // then it costs nothing
  }
  const auto tokenizer = data::load_tokenizer(folder_of(path));
  std::vector<std::int64_t> tokens = tokenizer->encode(arguments.prompt);
  std::size_t printed = 0;
  const auto print = [&] {  // what the text has more than before: a token may hold part of a character
    const std::string text = tokenizer->decode(tokens, {.skip_special_tokens = true});
    if (text.size() > printed) std::cout << text.substr(printed) << std::flush;
    printed = text.size();
  };
  arguments.options.stop_tokens = model.end_tokens;
  arguments.options.vocab_size = tokenizer->vocab_size();
  arguments.options.on_token = [&](std::int64_t token) {
    tokens.push_back(token);
    print();
    return true;
  };
  const std::vector<std::int64_t> prompt = tokens;
  const auto start = std::chrono::steady_clock::now();
  std::size_t made = 0;
  if (auto* gpt2 = std::get_if<std::unique_ptr<nn::Gpt2>>(&model.model))
    made = nn::generate(**gpt2, prompt, arguments.options).size();
  else if (auto* llama = std::get_if<std::unique_ptr<nn::Llama>>(&model.model))
    made = nn::generate(**llama, prompt, arguments.options).size();
  else fail("generate", path.string(), ": a ", model.model_type, " model makes no text");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  print();  // the prompt alone, where nothing followed
  std::cout << std::endl;
  std::fprintf(stderr, "%zu tokens, %.0f tokens/s\n", made, static_cast<double>(made) / seconds);
}

}  // namespace

int main(int count, char** words) {
  CLI::App app("Text from a released model.");
  Arguments arguments;
  describe(app, arguments);
  return program(app, count, words, [&] {
    check_use(app, arguments);
    run(std::move(arguments));
  });
}
