// The step has the learner's order: batch, forward, loss, backward, update.
#include "training.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <numeric>
#include <span>

using namespace stet;

namespace {

constexpr std::int64_t kChunk = 64;  // sequences in a pass without gradients

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<std::vector<std::int64_t>> chunks(const std::vector<std::int64_t>& order) {
  std::vector<std::vector<std::int64_t>> out;
  for (std::size_t at = 0; at < order.size(); at += kChunk)
    out.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(at),
                     order.begin() + static_cast<std::ptrdiff_t>(std::min(at + kChunk, order.size())));
  return out;
}

/// Rows in the order of `order` -> in the order of the texts.
Tensor in_order(const std::vector<Tensor>& rows, const std::vector<std::int64_t>& order) {
  std::vector<std::int64_t> place(order.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    place[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
  const Tensor all = cat(rows, 0);
  return index_select(all, 0, to(tensor(place), all.device()));
}

Tensor padding_of(const Tensor& tokens, std::int64_t pad) {
  return not_equal(tokens, full({}, static_cast<double>(pad), {DType::i64, tokens.device()}));
}

/// The lower blocks of the encoder that a method leaves as they are; none where it needs no cache.
std::size_t frozen_blocks(const Classifier& model, Method method) {
  const std::size_t blocks = model.bert.layers->size();
  return method == Method::head ? blocks : method == Method::top ? blocks - 1 : 0;
}

/// Decides what is trainable and in training mode. Returns how many parameters are trained.
std::int64_t prepare(Classifier& model, continual::Adapters& adapters, Method method) {
  model.unfreeze();
  model.train();
  if (method == Method::lora) {
    adapters.attach("intents",
                    continual::LoraOptions{.targets = {"bert.*.query", "bert.*.value"}, .rank = 8, .alpha = 16});
    adapters.freeze_base();
    model.head.unfreeze();
  }
  if (const std::size_t blocks = frozen_blocks(model, method))
    for (nn::Module* part : model.bert.prefix(blocks)) {
      part->freeze();
      part->eval();
    }
  return model.count_trainable();
}

/// What a frozen prefix makes of the examples: sentence vectors (n, width) under `head`, hidden states (n, T, width)
/// under `top`, where T is that of the longest example and what is beyond a text is 0.
class Features {
 public:
  Features(Classifier& model, Method method, const Encoded& examples)
      : model_(model),
        examples_(examples),
        blocks_(frozen_blocks(model, method)),
        whole_(method == Method::head),
        cache_(model.bert.prefix(blocks_), [this](const Tensor& tokens) { return compute(tokens); }) {
    for (const auto& ids : examples.ids) longest_ = std::max(longest_, std::ssize(ids));
  }

  bool used() const { return blocks_ > 0; }
  Tensor operator()(const std::vector<std::int64_t>& indices) {
    return cache_(indices, [this](const std::vector<std::int64_t>& missing) { return examples_.batch(missing); });
  }

  /// The classifier's logits from here on.
  Tensor logits(const std::vector<std::int64_t>& indices) {
    const Tensor features = (*this)(indices);
    if (whole_) return model_.head(features);
    const Tensor tokens = examples_.batch(indices), padding = padding_of(tokens, model_.padding);
    const Tensor x = contiguous(slice(features, 1, 0, tokens.shape()[1]));
    const Tensor hidden = model_.bert.layers->run(x, {.padding = padding}, blocks_, blocks_ + 1);
    return model_.head(nn::mean_pooling(hidden, padding));
  }

 private:
  Tensor compute(const Tensor& tokens) {
    const Tensor padding = padding_of(tokens, model_.padding);
    const Tensor x = model_.bert.embed(tokens);
    const Tensor hidden = model_.bert.layers->run(x, {.padding = padding}, 0, blocks_);
    if (whole_) return nn::mean_pooling(hidden, padding);
    const std::int64_t n = tokens.shape()[0], room = longest_ - tokens.shape()[1];
    return room ? cat({hidden, zeros({n, room, hidden.shape()[2]}, {hidden.dtype(), hidden.device()})}, 1) : hidden;
  }

  Classifier& model_;
  const Encoded& examples_;
  std::size_t blocks_;
  bool whole_;
  std::int64_t longest_ = 0;
  continual::FeatureCache cache_;
};

/// The nearest other rows of each by cosine (n, kNeighbours), each row's in ascending order.
std::vector<std::int64_t> neighbours(const Tensor& x) {
  const Tensor unit = x / sqrt(sum(x * x, {1}, true));
  const Tensor self = reshape(arange(x.shape()[0], {DType::i64, x.device()}), {x.shape()[0], 1});
  const Tensor likeness = matmul(unit, transpose(unit)) - 4 * cast(equal(self, transpose(self)), x.dtype());
  return sort(topk(likeness, kNeighbours, 1).indices, 1).values.to_vector<std::int64_t>();
}

/// Whether the rows differ by no more than batches and padding round them differently.
bool is_one_vector(const Tensor& x) {
  const Tensor wide = cast(x, DType::f64), off = wide - mean(wide, {0}, true);
  return max(abs(off)).item() <= 16 * std::numeric_limits<float>::epsilon() * max(abs(wide)).item();
}

}  // namespace

const char* name_of(Method method) {
  switch (method) {
    case Method::head: return "head";
    case Method::top: return "top";
    case Method::lora: return "lora";
    case Method::full: break;
  }
  return "full";
}

double usual_rate(Method method) {
  switch (method) {
    case Method::head: return 1e-2;
    case Method::top: return 2e-3;
    case Method::lora: return 4e-3;
    case Method::full: break;
  }
  return 3e-4;
}

Tensor Encoded::batch(const std::vector<std::int64_t>& indices) const {
  std::int64_t width = 1;
  for (const std::int64_t i : indices) width = std::max(width, std::ssize(ids[static_cast<std::size_t>(i)]));
  std::vector<std::int64_t> flat;
  flat.reserve(indices.size() * static_cast<std::size_t>(width));
  for (const std::int64_t i : indices) {
    const auto& row = ids[static_cast<std::size_t>(i)];
    flat.insert(flat.end(), row.begin(), row.end());
    flat.resize(flat.size() + static_cast<std::size_t>(width) - row.size(), padding);
  }
  return to(reshape(tensor(flat), {std::ssize(indices), width}), default_device());
}

Tensor Encoded::batch_labels(const std::vector<std::int64_t>& indices) const {
  std::vector<std::int64_t> out;
  for (const std::int64_t i : indices) out.push_back(labels[static_cast<std::size_t>(i)]);
  return to(tensor(out), default_device());
}

std::vector<std::int64_t> Encoded::by_length() const {
  std::vector<std::int64_t> order(ids.size());
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&](std::int64_t i) { return ids[static_cast<std::size_t>(i)].size(); };
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return length(a) < length(b); });
  return order;
}

Encoded encode(const data::Tokenizer& tokenizer, const std::vector<std::string>& texts,
               const std::vector<std::int64_t>& labels, std::int64_t length, std::int64_t vocabulary) {
  const auto padding = tokenizer.id_of("[PAD]");
  check(padding.has_value(), "encode", "the tokenizer has no [PAD], which fills up the short texts of a batch");
  Encoded out{{}, labels, {}, *padding};
  for (const std::string& text : texts) {
    std::vector<std::int64_t> ids = tokenizer.encode(text, {.parse_special_tokens = false});
    check(!ids.empty(), "encode", "found no token in the text \"", text, "\", expected one at least");
    const std::int64_t most = *std::max_element(ids.begin(), ids.end());
    check(most < vocabulary, "encode", "the tokenizer made id ", most, " of \"", text, "\", the model knows ",
          vocabulary);
    out.whole.push_back(std::ssize(ids));
    if (std::ssize(ids) > length) {
      const std::int64_t last = ids.back();  // [SEP]
      ids.resize(static_cast<std::size_t>(length));
      ids.back() = last;
    }
    out.ids.push_back(std::move(ids));
  }
  return out;
}

std::int64_t Encoded::cut() const {
  std::int64_t out = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) out += whole[i] > std::ssize(ids[i]);
  return out;
}

Classifier::Classifier(nn::BertConfig config, std::int64_t classes)
    : bert(this, "bert", config), head(this, "head", config.hidden_size, classes) {}

Tensor Classifier::embed(const Tensor& tokens) {
  const Tensor mask = padding_of(tokens, padding);
  return nn::mean_pooling(bert(tokens, {.padding = mask}).hidden, mask);
}

Trained train(Classifier& model, continual::Adapters& adapters, Method method, const Encoded& examples,
              const TrainingOptions& options, std::uint64_t seed,
              const std::function<void(double, const std::string&)>& report) {
  const double start = seconds_now();
  const std::clock_t clock = std::clock();
  Trained out{.parameters = prepare(model, adapters, method)};
  data::Loader loader(examples.size(), {.batch_size = options.batch}, Generator(seed).fork("order"));
  const std::int64_t steps = options.epochs * loader.batches(), warmup = std::max<std::int64_t>(1, steps / 10);
  const double rate = options.rate > 0 ? options.rate : usual_rate(method);
  optim::AdamW optimizer(model.trainable_parameters(), {.lr = rate, .weight_decay = 0});
  optimizer.clip_norm(1);
  optimizer.set_schedule(
      optim::warmup_schedule(warmup, optim::cosine_schedule(std::max<std::int64_t>(1, steps - warmup))));
  Features features(model, method, examples);
  if (features.used())  // in this order little is padded; later batches find everything there
    for (const auto& chunk : chunks(examples.by_length())) {
      features(chunk);
      report(0, std::string(name_of(method)) + ", features");
    }
  std::vector<std::int64_t> indices;
  const auto loss_of_batch = [&](std::int64_t step) {
    const Tensor logits = features.used() ? features.logits(indices) : model.head(model.embed(examples.batch(indices)));
    const Tensor loss = nn::cross_entropy(logits, examples.batch_labels(indices));
    continual::check_loss(loss.item(), "finetune_minilm", name_of(method), ", step ", step + 1, ", learning rate ",
                          rate, " (--rate)");
    return loss;
  };
  for (std::int64_t step = 0; step < steps;) {
    while (const auto batch = loader.next()) {
      indices.assign(batch->begin(), batch->end());
      optimizer.zero_grad();
      loss_of_batch(step).backward();
      optimizer.step();
      report(static_cast<double>(++step) / static_cast<double>(steps), name_of(method));
    }
  }
  out.seconds = seconds_now() - start;
  out.processor_seconds = static_cast<double>(std::clock() - clock) / CLOCKS_PER_SEC;
  const NoGrad no_grad;
  loss_of_batch(steps);  // what the last update has made
  return out;
}

Tensor embeddings(Classifier& model, const Encoded& texts) {
  const NoGrad no_grad;
  const nn::EvalScope evaluation(model);
  const std::vector<std::int64_t> order = texts.by_length();
  std::vector<Tensor> rows;
  for (const auto& chunk : chunks(order)) rows.push_back(model.embed(texts.batch(chunk)));
  return in_order(rows, order);
}

double accuracy_of(Classifier& model, const Encoded& examples) {
  const NoGrad no_grad;
  const Tensor labels = to(tensor(examples.labels), default_device());
  return nn::accuracy(model.head(embeddings(model, examples)), labels);
}

Kept kept(const Tensor& before, const Tensor& after) {
  const NoGrad no_grad;
  if (is_one_vector(before) || is_one_vector(after)) return {};
  Kept out{continual::linear_cka(before, after), 0};
  const std::vector<std::int64_t> old = neighbours(before), now = neighbours(after);
  std::vector<std::int64_t> common;
  for (auto a = old.begin(), b = now.begin(); a != old.end(); a += kNeighbours, b += kNeighbours)
    std::set_intersection(a, a + kNeighbours, b, b + kNeighbours, std::back_inserter(common));
  out.neighbours = static_cast<double>(common.size()) / static_cast<double>(old.size());
  return out;
}
