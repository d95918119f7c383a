// Learner::state() and load(). A state holds, by the first part of its names: "learner/" and "scenario/", what has to
// be the same; "standing/" and "result/", how far the run has come; "random/"; "trainable"; and what the model, the
// optimizer and each strategy save of themselves.
#include <algorithm>
#include <limits>
#include <set>
#include <sstream>

#include <stet/continual/learner.h>
#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

Tensor number(std::int64_t value) { return tensor(std::vector<std::int64_t>{value}, {}); }
Tensor number(double value) { return tensor(std::vector<double>{value}, {}); }

std::int64_t whole(const nn::State& state, const std::string& name) {
  return state.at(name).to_vector<std::int64_t>().front();
}

void add_part(nn::State& state, const std::string& prefix, const nn::State& part) {
  for (const auto& [name, value] : part) state[prefix + name] = value;
}

nn::State part_of(const nn::State& state, const std::string& prefix) {
  nn::State part;
  for (auto it = state.lower_bound(prefix); it != state.end() && it->first.starts_with(prefix); ++it)
    part[it->first.substr(prefix.size())] = it->second;
  return part;
}

std::string strategy_prefix(std::size_t i) { return "strategy " + std::to_string(i) + "/"; }

}  // namespace

/// What a learner is known by: options that decide which batch comes next, and the strategies' names.
Learner::Numbers Learner::identity() const {
  Numbers out{{"batch_size", options.batch_size},
              {"epochs", options.epochs},
              {"keep_optimizer", options.keep_optimizer},
              {"seed", static_cast<std::int64_t>(options.seed)}};
  for (std::size_t i = 0; i < strategies_.size(); ++i)
    out["strategy " + std::to_string(i) + ' ' + strategies_[i]->name()] = 1;
  return out;
}

Learner::Numbers Learner::identity_of(const Scenario& scenario) {
  Numbers out{{"setting", static_cast<std::int64_t>(scenario.setting)}, {"outputs", scenario.outputs}};
  for (std::size_t t = 0; t < scenario.tasks.size(); ++t) {
    const std::string task = "task " + std::to_string(t);
    out[task + " train"] = scenario.tasks[t].train.size();
    out[task + " test"] = scenario.tasks[t].test.size();
    out[task + " features"] = scenario.tasks[t].train.width();
    out[task + " fingerprint"] = static_cast<std::int64_t>(scenario.tasks[t].fingerprint() >> 1);  // not negative
  }
  return out;
}

void Learner::check_scenario(const Scenario& scenario) const {
  std::ostringstream problems;
  const Numbers found = identity_of(scenario);
  for (const auto& [name, value] : scenario_)
    if (!found.contains(name)) problems << "\n  missing: " << name;
    else if (found.at(name) != value) problems << "\n  differs: " << name << ' ' << found.at(name) << ", was " << value;
  for (const auto& [name, value] : found)
    if (!scenario_.contains(name)) problems << "\n  unexpected: " << name << ' ' << value;
  check(problems.str().empty(), "run", "this is not the scenario of the run to resume:", problems.str());
}

nn::State Learner::state() const {
  check(between_steps_, "state", "no run stands between two steps: ask from options.on_progress");
  nn::State out;
  const auto numbers = [&](const std::string& prefix, const Numbers& part) {
    for (const auto& [name, value] : part) out[prefix + name] = number(value);
  };
  const std::int64_t tasks = std::ssize(result_.accuracy.before);
  const GeneratorState random = default_generator().state();
  numbers("learner/", identity());
  numbers("scenario/", scenario_);
  numbers("standing/", {{"task", standing_.task},
                        {"epoch", standing_.epoch},
                        {"position", standing_.position},
                        {"steps", standing_.steps}});
  out["standing/loss"] = number(standing_.loss);
  out["standing/seconds"] = number(seconds_of_task());
  numbers("result/", {{"steps", result_.steps}, {"test_reads", result_.test_reads}});
  out["result/losses"] = tensor(result_.losses, {standing_.task});
  out["result/seconds"] = tensor(result_.seconds, {standing_.task});
  out["result/before"] = tensor(result_.accuracy.before, {tasks});
  std::vector<double> rows;
  for (const auto& row : result_.accuracy.r) rows.insert(rows.end(), row.begin(), row.end());
  out["result/accuracy"] = tensor(rows, {standing_.task, tasks});
  numbers("random/",
          {{"seed", static_cast<std::int64_t>(random.seed)}, {"draw", static_cast<std::int64_t>(random.draw)}});
  std::vector<std::int64_t> trainable;
  for (const nn::Parameter* p : model_.parameters()) trainable.push_back(p->trainable());
  out["trainable"] = tensor(trainable);
  add_part(out, "model/", model_.state());
  add_part(out, "optimizer/", optimizer_.state());
  for (std::size_t i = 0; i < strategies_.size(); ++i) add_part(out, strategy_prefix(i), strategies_[i]->state());
  return out;
}

/// What does not fit, a line for each, apart from what the optimizer and the strategies say themselves.
std::string Learner::problems_of(const nn::State& state) const {
  std::ostringstream problems;
  std::set<std::string> known;
  const auto want = [&](const std::string& name, const Shape& shape, DType dtype) {
    known.insert(name);
    const auto found = state.find(name);
    const bool there = found != state.end();
    if (!there) problems << "\n  missing: " << name;
    else if (!(found->second.shape() == shape) || found->second.dtype() != dtype)
      problems << "\n  mismatched: " << name << " is " << found->second.dtype() << ' ' << found->second.shape()
               << ", expected " << dtype << ' ' << shape;
    else return true;
    return false;
  };
  const auto want_number = [&](const std::string& name, std::int64_t low, std::int64_t high) -> std::int64_t {
    if (!want(name, {}, DType::i64)) return low;
    const std::int64_t value = whole(state, name);
    if (value >= low && value <= high) return value;
    problems << "\n  differs: " << name << " is " << value << ", expected " << low;
    if (high > low) problems << " to " << high;
    return low;
  };
  constexpr auto kAny = std::numeric_limits<std::int64_t>::max();
  constexpr auto kMostExamples = std::int64_t{1} << 40;  // those of all tasks can be added up
  for (const auto& [name, value] : identity()) want_number("learner/" + name, value, value);
  Numbers scenario;
  for (const auto& [name, value] : part_of(state, "scenario/"))
    scenario[name] = want_number("scenario/" + name, 0, name.ends_with(" fingerprint") ? kAny : kMostExamples);
  const auto before = state.find("result/before");
  const std::int64_t tasks = before == state.end() ? 1 : before->second.numel();
  for (std::int64_t t = 0; t < tasks; ++t) want("scenario/task " + std::to_string(t) + " fingerprint", {}, DType::i64);
  const std::int64_t task = want_number("standing/task", 0, std::max<std::int64_t>(tasks - 1, 0));
  want_number("standing/epoch", 0, options.epochs);
  std::int64_t examples = 0;  // of the stage
  for (int t : stage(static_cast<int>(task), static_cast<int>(tasks))) {
    const auto train = scenario.find("task " + std::to_string(t) + " train");
    if (train != scenario.end()) examples += train->second;
    else problems << "\n  missing: scenario/task " << t << " train";
  }
  const std::int64_t position = want_number("standing/position", 0, examples);
  if (options.batch_size > 0 && position % options.batch_size != 0 && position != examples)
    problems << "\n  differs: standing/position is " << position << ", expected a multiple of " << options.batch_size
             << " or " << examples;
  for (const char* name : {"standing/steps", "result/steps", "result/test_reads"}) want_number(name, 0, kAny);
  for (const char* name : {"random/seed", "random/draw"}) want_number(name, -kAny - 1, kAny);
  for (const char* name : {"standing/loss", "standing/seconds"}) want(name, {}, DType::f64);
  for (const char* name : {"result/losses", "result/seconds"}) want(name, {task}, DType::f64);
  want("result/before", {tasks}, DType::f64);
  want("result/accuracy", {task, tasks}, DType::f64);
  want("trainable", {std::ssize(model_.parameters())}, DType::i64);
  for (const auto& [name, value] : model_.state()) want("model/" + name, value.shape(), value.dtype());
  std::vector<std::string> prefixes{"optimizer/"};  // these look after themselves
  for (std::size_t i = 0; i < strategies_.size(); ++i) prefixes.push_back(strategy_prefix(i));
  for (const auto& [name, value] : state)
    if (!known.contains(name) && std::none_of(prefixes.begin(), prefixes.end(),
                                              [&name = name](const std::string& p) { return name.starts_with(p); }))
      problems << "\n  unexpected: " << name << ' ' << value.shape();
  return problems.str();
}

/// All or nothing: whatever was loaded before something did not fit gets back what it had.
void Learner::put(const nn::State& state) {
  std::string problems = problems_of(state);
  std::vector<std::function<void()>> undo;
  const auto load_part = [&](auto& part, const std::string& prefix) {
    try {
      const nn::State before = part.state();
      part.load(part_of(state, prefix));
      undo.push_back([&part, before] { part.load(before); });
    } catch (const Error& error) {
      problems += "\n  " + prefix + ": " + error.what();
    }
  };
  if (problems.empty()) load_part(model_, "model/");
  load_part(optimizer_, "optimizer/");
  for (std::size_t i = 0; i < strategies_.size(); ++i) load_part(*strategies_[i], strategy_prefix(i));
  if (!problems.empty()) {
    for (const auto& put_back : undo) put_back();
    fail("load", "the state does not fit this learner:", problems);
  }
  const auto trainable = state.at("trainable").to_vector<std::int64_t>();
  std::size_t i = 0;
  for (nn::Parameter* p : model_.parameters()) p->set_trainable(trainable[i++] != 0);
  default_generator().set_state({static_cast<std::uint64_t>(whole(state, "random/seed")),
                                 static_cast<std::uint64_t>(whole(state, "random/draw"))});
  standing_ = {whole(state, "standing/task"),  whole(state, "standing/epoch"),   whole(state, "standing/position"),
               whole(state, "standing/steps"), state.at("standing/loss").item(), state.at("standing/seconds").item()};
  result_.steps = whole(state, "result/steps");
  result_.test_reads = static_cast<int>(whole(state, "result/test_reads"));
  result_.losses = state.at("result/losses").to_vector<double>();
  result_.seconds = state.at("result/seconds").to_vector<double>();
  result_.accuracy.before = state.at("result/before").to_vector<double>();
  const auto rows = state.at("result/accuracy").to_vector<double>();
  result_.accuracy.r.clear();
  const std::size_t tasks = result_.accuracy.before.size();
  for (std::size_t at = 0; at < rows.size(); at += tasks)
    result_.accuracy.r.emplace_back(rows.begin() + static_cast<std::ptrdiff_t>(at),
                                    rows.begin() + static_cast<std::ptrdiff_t>(at + tasks));
  scenario_.clear();
  for (const auto& [name, value] : part_of(state, "scenario/"))
    scenario_[name] = value.to_vector<std::int64_t>().front();
}

void Learner::load(const nn::State& state) {
  check(!ran_, "load", "this learner has run already: a run is resumed by a new one");
  put(state);
  loaded_ = state;
}

}  // namespace stet::continual
