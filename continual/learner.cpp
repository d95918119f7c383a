// The training step, the stages, the evaluation.
#include <stet/continual/learner.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <stet/data/loader.h>
#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

int test_reads(const Scenario& scenario) {
  int reads = 0;
  for (const Task& task : scenario.tasks) reads += task.test.reads();
  return reads;
}

/// What the last update of a task has done shows in no loss.
void check_parameters(const nn::Module& model, const std::string& task) {
  for (const nn::Parameter* p : model.parameters())
    if (p->value().numel() > 0 && !std::isfinite(max(abs(p->value().detach())).item()))
      fail<Diverged>("run", "task '", task, "', after its last step: parameter '", p->path(),
                     "' is not finite: training has diverged: most often the learning rate is too high");
}

/// Another model's optimizer would step to the end of the run, and nothing would be learned.
void check_optimizer(const nn::Module& model, const optim::Optimizer& optimizer) {
  const auto trainable = model.trainable_parameters(), known = optimizer.parameters();
  if (trainable.empty() ||
      std::find_first_of(trainable.begin(), trainable.end(), known.begin(), known.end()) != trainable.end())
    return;
  fail("run", "the optimizer has ", known.size(), " parameters and none of the model's ", trainable.size(),
       " that are trainable, '", trainable.front()->path(), "' the first of them: expected one at least");
}

/// Strategies add penalties and transforms for a run, and may be gone after it: the optimizer gets back what it had.
class Restored {
 public:
  explicit Restored(optim::Optimizer& optimizer) : optimizer_(optimizer), before_(optimizer.additions()) {}
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;
  ~Restored() {
    if (done_) return;
    try {
      restore();
    } catch (...) {  // the run's own error is on its way
    }
  }
  void restore() {
    done_ = true;
    optimizer_.set_additions(std::move(before_));
  }

 private:
  optim::Optimizer& optimizer_;
  optim::Optimizer::Additions before_;
  bool done_ = false;
};

}  // namespace

Tensor Context::mask_logits(const Tensor& logits, const Tensor& tasks) const {
  return output_mask.defined() ? logits + index_select(output_mask, 0, tasks) : logits;
}

/// Before the mask is added: it would stretch one output, or one example, to all.
Tensor Context::logits(const Batch& batch) const {
  const Batch here = batch.to(device());
  const Tensor all = forward(here.x);
  const Shape expected{here.x.shape()[0], scenario.outputs};
  check(all.shape() == expected, "logits", "the model gives ", all.shape(), ": expected ", expected,
        ", an output for each of the scenario's");
  return mask_logits(all, here.task);
}

/// One training step; everything that a strategy can add stands here.
double Learner::step(Context& context, Batch batch) {
  for (const auto& s : strategies_) s->examples(context, batch);  // 1. examples
  batch = batch.to(context.device());
  optimizer_.zero_grad();                       // 2. parameterisation, 3. masks:
  const Tensor logits = context.logits(batch);  //    set up at the task's start
  Tensor loss = mean(cross_entropy_rows(logits, batch.y));
  for (const auto& s : strategies_)
    if (const Tensor extra = s->loss(context, batch, logits); extra.defined()) loss = loss + extra;  // 4. loss
  loss.backward();
  optimizer_.step();   // 5. gradient transforms, 6. quadratic penalties; masks apply to value and state
  return loss.item();  // last: a device has the whole step to do while the host waits
}

double Learner::train_stage(Context& context, const std::vector<int>& tasks) {
  // Positions count through the tasks' examples one after the other.
  std::vector<std::int64_t> starts{0};
  for (int t : tasks)
    starts.push_back(starts.back() + context.scenario.tasks[static_cast<std::size_t>(t)].train.size());
  data::Loader loader(starts.back(), {.batch_size = options.batch_size},
                      Generator(options.seed).fork("order").fork(static_cast<std::uint64_t>(context.task)));
  loader.restore({static_cast<std::uint64_t>(standing_.epoch), standing_.position, loader.state().generator});
  const std::int64_t steps = loader.batches() * options.epochs;
  const std::string& task = context.scenario.tasks[static_cast<std::size_t>(context.task)].name;
  while (static_cast<int>(loader.epoch()) < options.epochs) {
    const auto positions = loader.next();
    if (!positions) continue;  // the next epoch begins
    Batch batch;
    for (std::size_t k = 0; k < tasks.size(); ++k) {
      std::vector<std::int64_t> mine;
      for (std::int64_t at : *positions)
        if (at >= starts[k] && at < starts[k + 1]) mine.push_back(at - starts[k]);
      if (!mine.empty())
        batch = join(batch, context.scenario.tasks[static_cast<std::size_t>(tasks[k])].train.batch(mine));
    }
    between_steps_ = false;
    const double loss = step(context, std::move(batch));
    if (options.stop_when_diverged) {
      check_loss(loss, "run", "task '", task, "', step ", standing_.steps + 1, " of ", steps);
      if (standing_.steps + 1 == steps) check_parameters(model_, task);
    }
    ++result_.steps;
    result_.test_reads = test_reads(context.scenario) - reads_before_;
    standing_.epoch = static_cast<std::int64_t>(loader.epoch());
    standing_.position = loader.state().position;
    standing_.loss += loss;
    ++standing_.steps;
    between_steps_ = true;
    if (options.on_progress)
      options.on_progress(
          {context.task, static_cast<int>(context.scenario.tasks.size()), standing_.steps, steps, loss});
  }
  between_steps_ = false;
  return standing_.loss / static_cast<double>(std::max<std::int64_t>(standing_.steps, 1));
}

Context Learner::context_for(const Scenario& scenario) const {
  Context context{model_, optimizer_, scenario, forward_, 0, {}};
  if (scenario.setting == Setting::task_incremental) context.output_mask = to(scenario.output_mask(), model_.device());
  return context;
}

void Learner::check_claims() const {
  std::map<std::string, std::string> owners;
  for (const auto& s : strategies_)
    for (const std::string& claim : s->claims()) {
      const auto [it, fresh] = owners.try_emplace(claim, s->name());
      check(fresh, "Learner", "strategies '", it->second, "' and '", s->name(), "' both claim the ", claim);
    }
}

void Learner::add(std::unique_ptr<Strategy> strategy) {
  check(strategy != nullptr, "Learner", "no strategy to add");
  strategies_.push_back(std::move(strategy));
}

std::vector<int> Learner::stage(int task, int tasks) const {
  for (const auto& s : strategies_) {
    const auto chosen = s->training_tasks(task, tasks);
    if (chosen == std::vector<int>{task}) continue;
    for (int t : chosen)
      check(t >= 0 && t < tasks, "training_tasks", "strategy '", s->name(), "' trains stage ", task, " on task ", t,
            ": expected 0 to ", tasks - 1);
    return chosen;
  }
  return {task};
}

Result Learner::run(const Scenario& scenario) {
  check(!scenario.tasks.empty(), "run", "the scenario has no tasks");
  for (const Task& task : scenario.tasks)
    check(task.train.size() > 0, "run", "task '", task.name, "' has no training examples");
  check(options.epochs > 0, "run", options.epochs, " epochs");
  check(!ran_, "run", "a learner runs once: its strategies remember the tasks that they have seen");
  check_claims();
  const bool resumed = !loaded_.empty();
  if (resumed) check_scenario(scenario);
  ran_ = true;
  scenario_ = identity_of(scenario);
  result_.setting = scenario.setting;
  for (const auto& s : strategies_) result_.strategies += (result_.strategies.empty() ? "" : " + ") + s->name();
  for (const Task& task : scenario.tasks) result_.tasks.push_back(task.name);
  reads_before_ = test_reads(scenario) - result_.test_reads;
  Context context = context_for(scenario);
  Restored additions(optimizer_);
  if (!resumed) result_.accuracy.before = evaluate_all(scenario);
  for (const auto& s : strategies_) s->begin(context);
  if (resumed) put(loaded_);
  const std::int64_t tasks = std::ssize(scenario.tasks);
  for (bool midway = resumed; standing_.task < tasks; standing_ = {.task = standing_.task + 1}, midway = false) {
    task_began_ = Clock::now();
    context.task = static_cast<int>(standing_.task);
    const std::vector<int> trained = stage(context.task, static_cast<int>(tasks));
    if (trained.empty()) {  // nothing was learned, so there is nothing to measure
      result_.losses.push_back(kUnknown);
      result_.seconds.push_back(0);
      result_.accuracy.r.emplace_back(scenario.tasks.size(), kUnknown);
      continue;
    }
    if (!options.keep_optimizer && context.task > 0) optimizer_.reset_state();
    model_.train();
    for (const auto& s : strategies_) s->begin_task(context);
    if (midway) put(std::exchange(loaded_, {}));  // over what begin_task() started anew
    check_optimizer(model_, optimizer_);
    result_.losses.push_back(train_stage(context, trained));
    for (const auto& s : strategies_) s->end_task(context);
    result_.seconds.push_back(seconds_of_task());
    result_.accuracy.r.push_back(evaluate_all(scenario));
  }
  result_.test_reads = test_reads(scenario) - reads_before_;
  additions.restore();
  return result_;
}

double Learner::seconds_of_task() const {
  return standing_.seconds + std::chrono::duration<double>(Clock::now() - task_began_).count();
}

Tensor Learner::predict(const Tensor& x) {
  const NoGrad no_grad;
  const nn::EvalScope evaluation(model_);
  return argmax(forward_(x), -1);
}

double Learner::evaluate(const Scenario& scenario, const Examples& examples) {
  const NoGrad no_grad;
  const nn::EvalScope evaluation(model_);
  const Context context = context_for(scenario);
  constexpr std::int64_t kBatch = 1000;
  std::int64_t hits = 0;
  for (std::int64_t at = 0; at < examples.size(); at += kBatch) {
    const Batch batch = examples.range(at, std::min(at + kBatch, examples.size())).to(context.device());
    const Tensor right = equal(argmax(context.logits(batch), -1), batch.y);
    hits += static_cast<std::int64_t>(sum(right).item());
  }
  return examples.size() ? static_cast<double>(hits) / static_cast<double>(examples.size()) : kUnknown;
}

std::vector<double> Learner::evaluate_all(const Scenario& scenario) {
  std::vector<double> row;
  for (const Task& task : scenario.tasks) row.push_back(evaluate(scenario, task.test.read()));
  return row;
}

}  // namespace stet::continual
