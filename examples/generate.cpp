// Text from a released language model. Run:
//   build/release/examples/generate MODEL_DIR "Once upon a time" [--tokens N] [--temperature T] [--top-k K] [--top-p P]
//                                                                [--seed S]
// MODEL_DIR is a Hugging Face folder (GPT-2, Llama, Mistral, Qwen2, SmolLM2) with its tokenizer, or a llama2.c .bin
// with its tok*.bin beside it. Prints the prompt and what follows it; tokens and seconds go to stderr.
#include <charconv>
#include <chrono>
#include <cstdio>
#include <iostream>

#include <stet/stet.h>

using namespace stet;

namespace {

constexpr const char* kHelp =
    "generate MODEL \"prompt\" [--tokens N] [--temperature T] [--top-k K] [--top-p P] [--seed S]\n"
    "  MODEL            a Hugging Face folder, or a llama2.c .bin with its tokenizer beside it\n"
    "  --tokens N       tokens to make (default: 100)\n"
    "  --temperature T  0 (default): the most probable token each time\n"
    "  --top-k K        draws from the K most probable tokens\n"
    "  --top-p P        draws from the fewest tokens with probability P together\n"
    "  --seed S         another text for each (default: 1)\n";

struct Arguments {
  std::vector<std::string> words;  // model and prompt
  nn::GenerateOptions options{.seed = 1};
};

template <class Number> void read(Number& value, const std::string& name, const std::string& text) {
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  check(parsed.ec == std::errc() && parsed.ptr == end, "generate", name, " ", text, ": expected a number");
}

Arguments parse(int count, char** words) {
  Arguments out;
  for (int i = 1; i < count; ++i) {
    const std::string name = words[i];
    if (name == "--help") {
      std::cout << kHelp;
      std::exit(0);
    }
    if (!name.starts_with("--")) {
      out.words.push_back(name);
      continue;
    }
    check(i + 1 < count, "generate", name, " needs a value\n", kHelp);
    const std::string value = words[++i];
    if (name == "--tokens") read(out.options.max_new_tokens, name, value);
    else if (name == "--temperature") read(out.options.temperature, name, value);
    else if (name == "--top-k") read(out.options.top_k, name, value);
    else if (name == "--top-p") read(out.options.top_p, name, value);
    else if (name == "--seed") read(out.options.seed, name, value);
    else fail("generate", "unknown argument '", name, "'\n", kHelp);
  }
  check(out.words.size() == 2, "generate", "expected a model and a prompt\n", kHelp);
  return out;
}

nn::Pretrained load(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return nn::load_pretrained(path);
  return {.model_type = "llama", .model = nn::load_llama2c(path), .end_tokens = {1, 2}};
}

void run(Arguments arguments) {
  const std::filesystem::path path = arguments.words[0];
  const nn::Pretrained model = load(path);
  const auto tokenizer = data::load_tokenizer(std::filesystem::is_directory(path) ? path : path.parent_path());
  std::vector<std::int64_t> tokens = tokenizer->encode(arguments.words[1]);
  std::size_t printed = 0;
  const auto print = [&] {  // what the text has more than before: a token may hold part of a character
    const std::string text = tokenizer->decode(tokens, {.skip_special_tokens = true});
    if (text.size() > printed) std::cout << text.substr(printed) << std::flush;
    printed = text.size();
  };
  print();
  arguments.options.stop_tokens = model.end_tokens;
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
  std::cout << '\n';
  std::fprintf(stderr, "%zu tokens, %.0f tokens/s\n", made, static_cast<double>(made) / seconds);
}

}  // namespace

int main(int count, char** words) {
  try {
    run(parse(count, words));
  } catch (const Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
