// What is missing goes through the prefix; what is old is dropped.
#include <stet/continual/feature_cache.h>

#include <set>

#include <stet/nn/layers.h>
#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

std::vector<nn::Module*> modules_of(const std::vector<nn::Module*>& prefix) {
  std::vector<nn::Module*> out;
  for (nn::Module* part : prefix)
    for (nn::Module* module : part->modules()) out.push_back(module);
  return out;
}

std::vector<nn::Buffer*> buffers_of(const std::vector<nn::Module*>& modules) {
  std::vector<nn::Buffer*> out;
  for (const nn::Module* module : modules)
    for (nn::Buffer* buffer : module->buffers()) out.push_back(buffer);
  return out;
}

}  // namespace

void FeatureCache::check_frozen() const {
  for (const nn::Module* module : prefix_)
    for (const nn::Parameter* p : module->trainable_parameters())
      fail("FeatureCache", "parameter '", p->path(), "' is trainable: freeze the prefix");
  for (const nn::Module* module : modules_of(prefix_)) {
    const auto* dropout = dynamic_cast<const nn::Dropout*>(module);
    check(!dropout || !dropout->is_training() || dropout->p() == 0, "FeatureCache", "dropout '", module->path(),
          "' is active: put the prefix into evaluation mode");
  }
}

FeatureCache::Key FeatureCache::key() const {
  Key key;
  for (const nn::Module* module : prefix_)
    for (const nn::Parameter* p : module->parameters()) {
      key.values.emplace_back(p->value());
      key.values.emplace_back(*p);  // a stand-in's
    }
  for (const nn::Buffer* b : buffers_of(prefix_)) key.values.emplace_back(b->value());
  for (const nn::Module* module : modules_of(prefix_))
    for (const void* plugged : module->plugged()) key.plugged.push_back(plugged);
  return key;
}

void FeatureCache::compute(const Indices& missing, const Inputs& inputs) {
  std::vector<Stamp> before;
  const auto buffers = buffers_of(prefix_);
  for (const nn::Buffer* b : buffers) before.emplace_back(b->value());
  const NoGrad no_grad;
  const Tensor features = forward_(inputs(missing));
  // Whatever the layer is: a prefix that writes into its buffers is not a function of its input.
  for (std::size_t i = 0; i < buffers.size(); ++i)
    check(before[i] == Stamp(buffers[i]->value()), "FeatureCache", "buffer '", buffers[i]->path(),
          "' is written by the prefix (active dropout?): put the prefix into evaluation mode");
  const auto n = static_cast<std::int64_t>(missing.size());
  check(features.rank() >= 1 && features.shape()[0] == n, "FeatureCache", "features ", features.shape(), " of ", n,
        " examples: expected a row for each");
  for (std::int64_t i = 0; i < n; ++i) rows_[missing[static_cast<std::size_t>(i)]] = select(features, 0, i).clone();
  computed_ += n;
}

Tensor FeatureCache::operator()(const Indices& indices, const Inputs& inputs) {
  check(!indices.empty(), "FeatureCache", "no examples");
  check_frozen();
  Key now = key();
  if (!(now == key_)) rows_.clear();
  key_ = std::move(now);
  std::set<std::int64_t> missing;
  for (const std::int64_t i : indices)
    if (!rows_.contains(i)) missing.insert(i);
  if (!missing.empty()) compute({missing.begin(), missing.end()}, inputs);
  std::vector<Tensor> rows;
  for (const std::int64_t i : indices) rows.push_back(rows_.at(i));
  return stack(rows);
}

}  // namespace stet::continual
