// The tree of modules: registration, names, freezing, modes, state.
#include <stet/nn/module.h>

#include <algorithm>
#include <iomanip>
#include <sstream>

#include <stet/autograd/node.h>
#include <stet/tensor/compute.h>
#include <stet/tensor/error.h>

namespace stet::nn {
namespace {

/// Writes `source` over `target`: an in-place write, so graphs that saved the old values notice.
void overwrite(const Tensor& target, const Tensor& source, std::string_view what, const std::string& path) {
  check(source.defined() && source.shape() == target.shape(), "set", what, " '", path, "' has shape ", target.shape(),
        ", not ", source.defined() ? source.shape() : Shape{});
  const NoGrad no_grad;
  target.copy_(source.detach());
}

}  // namespace

std::string join_path(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

Parameter::Parameter(Module* owner, std::string name, Tensor initial)
    : owner_(owner), name_(std::move(name)), value_(std::move(initial)) {
  check(owner, "Parameter", "'", name_, "' needs an owner");
  check(is_floating(value_.dtype()), "Parameter", "'", name_, "' holds ", value_.dtype(),
        ": expected a floating dtype");
  owner->adopt("parameter", name_);
  // Its own memory in row-major order: updates write into it.
  if (!owned(value_) || value_.requires_grad() || value_.impl().offset != 0) value_ = value_.clone();
  value_.set_requires_grad();
  owner->parameters_.push_back(this);
  static_cast<Leaf*>(node_of(value_))->label = path();
}

Parameter::~Parameter() { std::erase(owner_->parameters_, this); }

std::string Parameter::path() const { return join_path(owner_->path(), name_); }

void Parameter::set_trainable(bool on) {
  if (on == trainable_) return;
  trainable_ = on;
  value_.set_requires_grad(on);
  if (on) static_cast<Leaf*>(node_of(value_))->label = path();
}

void Parameter::zero_grad() {
  if (trainable_) value_.set_grad(Tensor());
}

void Parameter::set_stand_in(const Parameter* other) {
  check(!other || other->shape() == shape(), "set_stand_in", "'", path(), "' has shape ", shape(), ", '",
        other ? other->path() : "", "' has ", other ? other->shape() : Shape{});
  stand_in_ = other;
}

void Parameter::set(const Tensor& value) { overwrite(value_, value, "parameter", path()); }

void Parameter::move_to(Device device) {
  if (value_.device() == device) return;
  const NoGrad no_grad;
  value_ = stet::to(value_.detach(), device);
  if (!trainable_) return;
  value_.set_requires_grad();
  static_cast<Leaf*>(node_of(value_))->label = path();
}

Buffer::Buffer(Module* owner, std::string name, Tensor initial)
    : owner_(owner), name_(std::move(name)), value_(initial.clone()) {
  check(owner, "Buffer", "'", name_, "' needs an owner");
  owner->adopt("buffer", name_);
  owner->buffers_.push_back(this);
}

Buffer::~Buffer() { std::erase(owner_->buffers_, this); }
std::string Buffer::path() const { return join_path(owner_->path(), name_); }
void Buffer::set(const Tensor& value) { overwrite(value_, value, "buffer", path()); }

Module::Module(Module* parent, std::string name) : parent_(parent), name_(std::move(name)) {
  check(parent, "Module", "'", name_, "' needs a parent: a root is made without arguments");
  parent->adopt("module", name_);
  training_ = parent->training_;
  parent->children_.push_back(this);
}

Module::~Module() {
  if (parent_) std::erase(parent_->children_, this);
  for (Module* child : children_) child->parent_ = nullptr;
}

void Module::adopt(std::string_view kind, const std::string& name) const {
  check(!name.empty() && name.find('.') == std::string::npos, "Module", kind, " name '", name,
        "': expected a name without dots");
  const auto taken = [&](const auto& list) {
    return std::any_of(list.begin(), list.end(), [&](const auto* part) { return part->name_ == name; });
  };
  check(!taken(children_) && !taken(parameters_) && !taken(buffers_), "Module", "'", path(),
        "' already has a part named '", name, "'");
}

std::string Module::path() const { return parent_ ? join_path(parent_->path(), name_) : std::string(); }

template <class Visit> void Module::visit(const Visit& visit_module) const {
  visit_module(*this);
  for (const Module* child : children_) child->visit(visit_module);
}

std::vector<Module*> Module::modules() {
  std::vector<Module*> out{this};
  for (Module* child : children_) {
    const std::vector<Module*> below = child->modules();
    out.insert(out.end(), below.begin(), below.end());
  }
  return out;
}

std::vector<Parameter*> Module::parameters() const {
  std::vector<Parameter*> out;
  visit([&](const Module& m) { out.insert(out.end(), m.parameters_.begin(), m.parameters_.end()); });
  return out;
}

std::vector<Parameter*> Module::trainable_parameters() const {
  std::vector<Parameter*> out = parameters();
  std::erase_if(out, [](const Parameter* p) { return !p->trainable(); });
  return out;
}

std::vector<Buffer*> Module::buffers() const {
  std::vector<Buffer*> out;
  visit([&](const Module& m) { out.insert(out.end(), m.buffers_.begin(), m.buffers_.end()); });
  return out;
}

std::vector<Module*> Module::added() const {
  std::vector<Module*> out;
  for (Module* child : children_) {
    const auto found = child->is_added() ? std::vector{child} : child->added();
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

std::vector<Parameter*> Module::parameters_without_added() const {
  std::vector<Parameter*> out = parameters_;
  for (Module* child : children_) {
    if (child->is_added()) continue;
    const auto inside = child->parameters_without_added();
    out.insert(out.end(), inside.begin(), inside.end());
  }
  return out;
}

std::string Module::relative(const std::string& full) const {
  const std::string mine = path();
  return mine.empty() ? full : full.substr(mine.size() + 1);
}

Parameter& Module::parameter(std::string_view wanted) const {
  std::string known;
  for (Parameter* p : parameters()) {
    const std::string name = relative(p->path());
    if (name == wanted) return *p;
    known += (known.empty() ? "" : ", ") + name;
  }
  fail("parameter", "no parameter '", wanted, "'; known: ", known);
}

std::int64_t Module::count() const {
  std::int64_t n = 0;
  for (const Parameter* p : parameters()) n += p->numel();
  return n;
}

std::int64_t Module::count_trainable() const {
  std::int64_t n = 0;
  for (const Parameter* p : trainable_parameters()) n += p->numel();
  return n;
}

namespace {

int set_matching(const Module& module, std::string_view op, std::string_view glob, bool trainable) {
  int matched = 0;
  for (Parameter* p : module.parameters())
    if (glob_match(glob, module.relative(p->path()))) {
      p->set_trainable(trainable);
      ++matched;
    }
  check(matched > 0, op, "no parameter matches '", glob, "'");
  return matched;
}

}  // namespace

int Module::freeze(std::string_view glob) { return set_matching(*this, "freeze", glob, false); }
int Module::unfreeze(std::string_view glob) { return set_matching(*this, "unfreeze", glob, true); }

void Module::train(bool on) {
  training_ = on;
  for (Module* child : children_) child->train(on);
}

void Module::zero_grad() {
  for (Parameter* p : parameters()) p->zero_grad();
}

State Module::shared_state() const {
  State out;
  for (const Parameter* p : parameters()) out[relative(p->path())] = p->value().detach();
  for (const Buffer* b : buffers()) out[relative(b->path())] = b->value().detach();
  return out;
}

State Module::state() const {
  State out = shared_state();
  for (auto& [name, value] : out) value = value.clone();
  return out;
}

Shapes shapes_of(const State& state) {
  Shapes out;
  for (const auto& [name, value] : state) out[name] = value.shape();
  return out;
}

Misfits misfits(const Shapes& found, const Shapes& wanted) {
  Misfits out;
  std::ostringstream problems;
  for (const auto& [name, shape] : wanted) {
    const auto at = found.find(name);
    if (at == found.end()) problems << "\n  missing: " << name << ' ' << shape;
    else if (!(at->second == shape))
      problems << "\n  mismatched: " << name << " is " << at->second << ", the model has " << shape;
    else continue;
    out.names.push_back(name);
  }
  for (const auto& [name, shape] : found)
    if (!wanted.contains(name)) {
      problems << "\n  unexpected: " << name << ' ' << shape;
      out.names.push_back(name);
    }
  out.text = std::to_string(out.names.size()) + " names do not fit the model:" + problems.str();
  return out;
}

std::vector<std::string> Module::load(const State& state, bool strict) {
  const State targets = shared_state();
  Misfits left_out = misfits(shapes_of(state), shapes_of(targets));
  check(!strict || left_out.names.empty(), "load", left_out.text);
  for (const auto& [name, value] : state)
    if (std::find(left_out.names.begin(), left_out.names.end(), name) == left_out.names.end())
      targets.at(name).copy_(value.detach());
  return std::move(left_out.names);
}

bool glob_match(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t]) && pattern[p] != '*') {
      ++p;
      ++t;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

EvalScope::EvalScope(Module& module) {
  for (Module* each : module.modules()) modes_.emplace_back(each, each->is_training());
  module.eval();
}
EvalScope::~EvalScope() {
  // Outer modules first: train() reaches down, and each inner module then gets its own mode back.
  for (const auto& [module, mode] : modes_) module->train(mode);
}

std::string with_commas(std::int64_t value) {
  const std::string digits = std::to_string(value);
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0 && digits[i - 1] != '-') out.push_back(',');
    out.push_back(digits[i]);
  }
  return out;
}

void Module::to(Device device) {
  for (Parameter* p : parameters()) p->move_to(device);
  const NoGrad no_grad;
  for (Buffer* b : buffers())
    if (is_floating(b->value_.dtype())) b->value_ = stet::to(b->value_, device);
}

Device Module::device() const {
  const auto all = parameters();
  return all.empty() ? Device::cpu() : all.front()->value().device();
}

std::string summary(const Module& module) {
  struct Row {
    std::string name, shape, count, trainable;
  };
  std::vector<Row> rows{{"parameter", "shape", "count", "trainable"}};
  std::size_t name_width = 0, shape_width = 0, count_width = 0;
  const std::string prefix = module.path().empty() ? "" : module.path() + ".";
  for (const Parameter* p : module.parameters()) {
    std::ostringstream shape;
    shape << p->shape();
    rows.push_back(
        {p->path().substr(prefix.size()), shape.str(), with_commas(p->numel()), p->trainable() ? "yes" : "no"});
  }
  for (const Row& row : rows) {
    name_width = std::max(name_width, row.name.size());
    shape_width = std::max(shape_width, row.shape.size());
    count_width = std::max(count_width, row.count.size());
  }
  std::ostringstream out;
  for (const Row& row : rows)
    out << std::left << std::setw(static_cast<int>(name_width)) << row.name << "  "
        << std::setw(static_cast<int>(shape_width)) << row.shape << "  " << std::right
        << std::setw(static_cast<int>(count_width)) << row.count << "  " << row.trainable << '\n';
  const std::int64_t trainable = module.count_trainable();
  out << "Frozen params: " << with_commas(module.count() - trainable)
      << "   Trainable params: " << with_commas(trainable) << '\n';
  return out.str();
}

}  // namespace stet::nn
