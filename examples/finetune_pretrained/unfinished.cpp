// One safetensors file; names say whose state a tensor is.
#include "unfinished.h"

#include <bit>
#include <cstdint>
#include <map>

using namespace stet;

namespace {

constexpr std::string_view kModel = "model.", kOptimizer = "optimizer.", kSettings = "settings";

Tensor numbers(const std::vector<double>& values) {
  const DefaultDevice host(Device::cpu());
  return tensor(values);
}

/// What training may change: its parameters, and the state of dropout's draws.
nn::State changing(const nn::Module& model) {
  nn::State out;
  for (const nn::Parameter* p : model.trainable_parameters()) out[model.relative(p->path())] = p->value().detach();
  for (const nn::Buffer* b : model.buffers()) out[model.relative(b->path())] = b->value().detach();
  return out;
}

}  // namespace

void Unfinished::save(const Progress& progress, const nn::Module& model, const optim::Optimizer& optimizer) const {
  nn::State state;
  for (const auto& [name, value] : changing(model)) state[std::string(kModel) + name] = value;
  for (const auto& [name, value] : optimizer.state()) state[std::string(kOptimizer) + name] = value;
  const DefaultDevice host(Device::cpu());
  state["progress"] =
      tensor(std::vector<std::int64_t>{progress.step, std::bit_cast<std::int64_t>(progress.windows.seed),
                                       std::bit_cast<std::int64_t>(progress.windows.draw)});
  state["domain before"] = numbers(progress.domain_before);
  state["general before"] = numbers(progress.general_before);
  nn::save_safetensors(file_, state, {{std::string(kSettings), settings_}});
}

Progress Unfinished::load(nn::Module& model, optim::Optimizer& optimizer) const {
  nn::Metadata metadata;
  const nn::State state = nn::load_safetensors(file_, &metadata);
  check(metadata[std::string(kSettings)] == settings_, "finetune_pretrained", file_.string(),
        ": found a run that was stopped with other settings:\n  ", metadata[std::string(kSettings)],
        "\nexpected these, or remove the file:\n  ", settings_);
  nn::State of_model, of_optimizer;
  for (const auto& [name, value] : state) {
    if (name.starts_with(kModel)) of_model[name.substr(kModel.size())] = value;
    if (name.starts_with(kOptimizer)) of_optimizer[name.substr(kOptimizer.size())] = value;
  }
  const nn::State targets = changing(model);
  const nn::Misfits wrong = nn::misfits(nn::shapes_of(of_model), nn::shapes_of(targets));
  check(wrong.names.empty() && state.contains("progress") && state.contains("domain before") &&
            state.contains("general before"),
        "finetune_pretrained", file_.string(), ": ", wrong.names.empty() ? "found no progress" : wrong.text);
  optimizer.load(of_optimizer);
  const NoGrad no_grad;
  for (const auto& [name, value] : of_model) targets.at(name).copy_(value);
  const auto at = state.at("progress").values<std::int64_t>();
  check(at.size() == 3, "finetune_pretrained", file_.string(), ": found \"progress\" of ", at.size(), " numbers");
  const auto losses = [&](const char* name) {
    const auto values = state.at(name).values<double>();
    return std::vector<double>(values.begin(), values.end());
  };
  return {at[0],
          {std::bit_cast<std::uint64_t>(at[1]), std::bit_cast<std::uint64_t>(at[2])},
          losses("domain before"),
          losses("general before")};
}
