// Building scenarios.
#include <stet/continual/scenario.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <sstream>

#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

void check_pools(const Pool& train, const Pool& test) {
  check(train.x.rank() == 2 && test.x.rank() == 2 && train.x.shape()[1] == test.x.shape()[1], "scenario", "training x ",
        train.x.shape(), " and test x ", test.x.shape(), ": expected (n, d) with one d");
}

std::int64_t class_count(const Pool& pool) {
  std::int64_t top = -1;
  for (std::int64_t label : pool.y.values<std::int64_t>()) {
    check(label >= 0, "scenario", "label ", label, " is negative");
    top = std::max(top, label);
  }
  return top + 1;
}

std::vector<std::int64_t> indices_of(const Pool& pool, const std::vector<std::int64_t>& classes) {
  std::vector<std::int64_t> out;
  const auto labels = pool.y.values<std::int64_t>();
  for (std::size_t i = 0; i < labels.size(); ++i)
    if (std::find(classes.begin(), classes.end(), labels[i]) != classes.end())
      out.push_back(static_cast<std::int64_t>(i));
  return out;
}

std::vector<std::int64_t> all_indices(const Pool& pool) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(pool.y.numel()));
  std::iota(out.begin(), out.end(), std::int64_t{0});
  return out;
}

std::vector<std::int64_t> range(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(end - begin));
  std::iota(out.begin(), out.end(), begin);
  return out;
}

/// One task for each pixel map: the same classes throughout.
Scenario with_pixel_maps(const Pool& train, const Pool& test, Setting setting,
                         const std::vector<std::vector<std::int64_t>>& maps, const std::vector<std::string>& names) {
  const auto train_pool = std::make_shared<const Pool>(on_cpu(train)),
             test_pool = std::make_shared<const Pool>(on_cpu(test));
  const std::int64_t classes = std::max(class_count(*train_pool), class_count(*test_pool));
  const bool shared = setting == Setting::domain_incremental;
  Scenario out{setting, shared ? classes : classes * static_cast<std::int64_t>(maps.size()), {}};
  for (std::size_t t = 0; t < maps.size(); ++t) {
    const auto task = static_cast<std::int64_t>(t);
    const std::int64_t first = shared ? 0 : task * classes;
    const auto outputs = range(first, first + classes);
    out.tasks.push_back({names[t], Examples(train_pool, all_indices(train), task, outputs, maps[t]),
                         TestSplit(Examples(test_pool, all_indices(test), task, outputs, maps[t])), outputs});
  }
  return out;
}

std::vector<std::int64_t> rotation_map(std::int64_t side, double degrees) {
  const double angle = degrees * std::numbers::pi / 180, centre = (static_cast<double>(side) - 1) / 2;
  std::vector<std::int64_t> map;
  for (std::int64_t row = 0; row < side; ++row)
    for (std::int64_t col = 0; col < side; ++col) {
      const double y = static_cast<double>(row) - centre, x = static_cast<double>(col) - centre;
      const auto from_col = static_cast<std::int64_t>(std::lround(centre + x * std::cos(angle) - y * std::sin(angle)));
      const auto from_row = static_cast<std::int64_t>(std::lround(centre + x * std::sin(angle) + y * std::cos(angle)));
      const bool inside = from_row >= 0 && from_row < side && from_col >= 0 && from_col < side;
      map.push_back(inside ? from_row * side + from_col : -1);
    }
  return map;
}

}  // namespace

std::string_view name_of(Setting setting) {
  constexpr std::string_view names[] = {"task-incremental", "domain-incremental", "class-incremental"};
  return names[static_cast<int>(setting)];
}

std::uint64_t Task::fingerprint() const {
  const std::vector<std::int64_t> letters(name.begin(), name.end());
  const std::vector<std::int64_t> splits{static_cast<std::int64_t>(train.fingerprint()),
                                         static_cast<std::int64_t>(test.fingerprint())};
  std::uint64_t hash = 0;
  for (const auto& numbers : {&letters, &outputs, &splits}) hash = fold(hash, *numbers);
  return hash;
}

Tensor Scenario::output_mask() const {
  const auto count = static_cast<std::int64_t>(tasks.size());
  Tensor mask = full({count, outputs}, -1e30, Device::cpu());
  auto* at = mask.mutable_data<float>();
  for (std::int64_t t = 0; t < count; ++t)
    for (std::int64_t output : tasks[static_cast<std::size_t>(t)].outputs) {
      check(output >= 0 && output < outputs, "output_mask", "task '", tasks[static_cast<std::size_t>(t)].name,
            "' has output ", output, ": expected 0 to ", outputs - 1);
      at[t * outputs + output] = 0;
    }
  return to(mask, default_device());
}

Scenario split_classes(const Pool& train, const Pool& test, Setting setting, std::int64_t classes_per_task,
                       std::vector<std::int64_t> order) {
  check_pools(train, test);
  const auto train_pool = std::make_shared<const Pool>(on_cpu(train)),
             test_pool = std::make_shared<const Pool>(on_cpu(test));
  const std::int64_t classes = class_count(*train_pool);
  check(class_count(*test_pool) <= classes, "split_classes", "the test split has labels that the training split lacks");
  if (order.empty()) order = range(0, classes);
  check(classes_per_task > 0 && order.size() % static_cast<std::size_t>(classes_per_task) == 0, "split_classes",
        order.size(), " classes do not split into tasks of ", classes_per_task);
  for (std::int64_t c : order)
    check(c >= 0 && c < classes && std::count(order.begin(), order.end(), c) == 1, "split_classes", "class ", c, " of ",
          classes, " must be named once");
  const bool shared = setting == Setting::domain_incremental;
  Scenario out{setting, shared ? classes_per_task : static_cast<std::int64_t>(order.size()), {}};
  for (std::size_t first = 0; first < order.size(); first += static_cast<std::size_t>(classes_per_task)) {
    const std::vector<std::int64_t> mine(order.begin() + static_cast<std::ptrdiff_t>(first),
                                         order.begin() + static_cast<std::ptrdiff_t>(first) + classes_per_task);
    std::vector<std::int64_t> label_map(static_cast<std::size_t>(classes), -1), outputs;
    std::string name;
    for (std::size_t i = 0; i < mine.size(); ++i) {
      outputs.push_back(static_cast<std::int64_t>(shared ? i : first + i));
      label_map[static_cast<std::size_t>(mine[i])] = outputs.back();
      name += (i ? "," : "") + std::to_string(mine[i]);
    }
    const auto task = static_cast<std::int64_t>(out.tasks.size());
    out.tasks.push_back({name, Examples(train_pool, indices_of(*train_pool, mine), task, label_map),
                         TestSplit(Examples(test_pool, indices_of(*test_pool, mine), task, label_map)), outputs});
  }
  return out;
}

Scenario hold_out(const Scenario& scenario, double share) {
  check(share > 0 && share < 1, "hold_out", "share ", share, ": expected more than 0 and less than 1");
  Scenario out{scenario.setting, scenario.outputs, {}};
  for (const Task& task : scenario.tasks) {
    const std::int64_t all = task.train.size(), held = std::llround(share * static_cast<double>(all));
    check(held > 0 && held < all, "hold_out", "a share of ", share, " of ", all, " examples of task '", task.name,
          "' leaves one side empty");
    out.tasks.push_back(
        {task.name, task.train.subset(0, all - held), TestSplit(task.train.subset(all - held, all)), task.outputs});
  }
  return out;
}

Scenario permuted(const Pool& train, const Pool& test, Setting setting, std::int64_t tasks, Generator& generator) {
  check(tasks > 0, "permuted", tasks, " tasks");
  check_pools(train, test);
  std::vector<std::vector<std::int64_t>> maps(1);
  std::vector<std::string> names{"original"};
  for (std::int64_t t = 1; t < tasks; ++t) {
    maps.push_back(permutation(generator, train.x.shape()[1]));
    names.push_back("permutation " + std::to_string(t));
  }
  return with_pixel_maps(train, test, setting, maps, names);
}

Scenario rotated(const Pool& train, const Pool& test, Setting setting, std::int64_t side,
                 const std::vector<double>& angles) {
  check(!angles.empty(), "rotated", "needs at least one angle");
  for (double angle : angles) check(std::isfinite(angle), "rotated", "an angle of ", angle, " degrees");
  check_pools(train, test);
  check(side > 0 && side * side == train.x.shape()[1], "rotated", "images of side ", side, " for ", train.x.shape()[1],
        " pixels");
  std::vector<std::vector<std::int64_t>> maps;
  std::vector<std::string> names;
  for (double angle : angles) {
    maps.push_back(rotation_map(side, angle));
    std::ostringstream name;
    name << angle << " degrees";
    names.push_back(name.str());
  }
  return with_pixel_maps(train, test, setting, maps, names);
}

}  // namespace stet::continual
