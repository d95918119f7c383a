// Down, activation, up.
#include <stet/continual/adapters/bottleneck.h>

#include <cmath>

#include <stet/nn/init.h>
#include <stet/tensor/error.h>

namespace stet::continual {
namespace {

std::int64_t checked_width(const nn::Module& block, const BottleneckOptions& options) {
  check(options.width >= 1, "Bottleneck", "'", block.path(), "': width ", options.width, ", expected at least 1");
  check(std::isfinite(options.scale), "Bottleneck", "'", block.path(), "': scale ", options.scale,
        ", expected a finite number");
  return options.width;
}

}  // namespace

BottleneckPiece::BottleneckPiece(nn::TransformerBlock& block, std::string name, std::string place,
                                 bool behind_attention, const BottleneckOptions& options)
    : Piece(block, std::move(name), std::move(place)),
      block_(block),
      slot_(behind_attention ? block.attention_slot : block.mlp_slot),
      options_(options),
      down_(this, "down", block.width(), checked_width(block, options)),
      up_(this, "up", options.width, block.width()) {
  nn::init::apply(down_.weight, nn::init::kaiming_uniform({.nonlinearity = nn::init::Nonlinearity::relu}));
  for (nn::Parameter* p : {&*down_.bias, &up_.weight, &*up_.bias}) nn::init::apply(*p, nn::init::zeros());
  to(block.device());
}

Tensor BottleneckPiece::operator()(const Tensor& x, const Tensor& y) {
  const Tensor& in = options_.placement == Bottleneck::parallel ? x : y;
  return y + up_(down_(in, options_.activation)) * options_.scale;
}

Piece::Settings BottleneckPiece::settings() const {
  return {{"placement", static_cast<double>(options_.placement)},
          {"width", static_cast<double>(options_.width)},
          {"activation", static_cast<double>(options_.activation)},
          {"scale", options_.scale}};
}

void BottleneckPiece::plug(bool on) {
  if (!parent()) return;  // the block is gone
  if (on) check_slot_free(!slot_);
  if (on) slot_ = this;
  else if (slot_ == this) slot_ = nullptr;
}

void BottleneckPiece::merge(bool) { refuse(); }
void BottleneckPiece::fold(nn::State&) const { refuse(); }

void BottleneckPiece::refuse() const {
  fail("merge", "'", path(), "' is not linear: bottleneck adapters cannot be merged");
}

}  // namespace stet::continual
