// Scenarios: a sequence of tasks, and what a model is told about them (van de Ven, Tuytelaars & Tolias 2022).
#pragma once

#include <string>
#include <vector>

#include <stet/continual/examples.h>

namespace stet::continual {

enum class Setting {
  task_incremental,    ///< the task of each example is known, at test time too: only its outputs compete
  domain_incremental,  ///< same outputs in every task, the inputs change
  class_incremental,   ///< new outputs with every task, all compete, nobody tells the task
};
std::string_view name_of(Setting setting);

/// Held-out examples behind a counter: whatever reads them is seen to.
class TestSplit {
 public:
  TestSplit() = default;
  explicit TestSplit(Examples examples) : examples_(std::move(examples)) {}
  const Examples& read() const {
    ++reads_;
    return examples_;
  }
  std::int64_t size() const { return examples_.size(); }
  int reads() const { return reads_; }
  std::uint64_t fingerprint() const { return examples_.fingerprint(); }  ///< does not count as reading

 private:
  Examples examples_;
  mutable int reads_ = 0;
};

struct Task {
  std::string name;
  Examples train;
  TestSplit test;
  std::vector<std::int64_t> outputs;  ///< outputs of the model that this task uses
  /// A hash of the name, the outputs and both splits.
  std::uint64_t fingerprint() const;
};

struct Scenario {
  Setting setting = Setting::class_incremental;
  std::int64_t outputs = 0;  ///< width of the model's last layer; a learner refuses a model with another
  std::vector<Task> tasks;

  /// (tasks, outputs) f32, to be added to logits: 0 where an output belongs to the task, -1e30 elsewhere.
  /// An Error for an output that the model does not have.
  Tensor output_mask() const;
};

/// Tasks of `classes_per_task` classes each, taken from `order` (all classes in their own order when empty).
/// Domain-incremental: the i-th class of every task is output i.
Scenario split_classes(const Pool& train, const Pool& test, Setting setting, std::int64_t classes_per_task,
                       std::vector<std::int64_t> order = {});

/// The last `share` (0..1) of each task's training examples takes the place of its test split, so that
/// settings can be chosen without reading the real one.
Scenario hold_out(const Scenario& scenario, double share);

/// The same classes with a fixed random permutation of the features per task; the first task is unchanged.
Scenario permuted(const Pool& train, const Pool& test, Setting setting, std::int64_t tasks, Generator& generator);

/// The same classes with square images of side `side` turned by an angle per task (degrees,
/// counter-clockwise, nearest pixel, 0 outside).
Scenario rotated(const Pool& train, const Pool& test, Setting setting, std::int64_t side,
                 const std::vector<double>& angles);

}  // namespace stet::continual
