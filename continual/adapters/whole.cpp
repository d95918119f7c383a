// Copies in the parameters' places.
#include <stet/continual/adapters/whole.h>

#include <stet/tensor/error.h>

namespace stet::continual {
namespace {
constexpr std::string_view kHint = " (ensure_weight_tying)";
}

std::vector<nn::Parameter*> own_parameters(const nn::Module& module) {
  const std::string path = module.path();
  std::vector<nn::Parameter*> own;
  for (nn::Parameter* p : module.parameters())
    if (p->path() == nn::join_path(path, p->name())) own.push_back(p);
  return own;
}

WholeModule::WholeModule(nn::Module& base, std::string name, std::string place)
    : Piece(base, std::move(name), std::move(place)) {
  for (nn::Parameter* p : own_parameters(base)) copy(*p);
}

WholeTable::WholeTable(nn::Embedding& base, std::string name, std::string place, nn::TiedLinear& head,
                       std::optional<std::string> tied_place)
    : WholeModule(base, std::move(name), std::move(place)), head_(head), tied_place_(std::move(tied_place)) {}

void WholeTable::plug(bool on) {
  if (!parent()) return;  // the model is gone
  const nn::Parameter* mine = own_parameters(*this).front();
  if (tied_place_ && on) check_slot_free(!head_.stand_in);
  WholeModule::plug(on);
  if (tied_place_ && on) head_.stand_in = mine;
  else if (head_.stand_in == mine) head_.stand_in = nullptr;
}

void WholeTable::fold(nn::State& state) const {
  if (!tied_place_) refuse_untied(*this, head_, kHint);
  WholeModule::fold(state);
}

WholeHead::WholeHead(nn::TiedLinear& base, std::string name, std::string place)
    : Piece(base, std::move(name), std::move(place)),
      weight(this, "weight", base.table().weight.value().detach()),
      base_(base) {}

void WholeHead::plug(bool on) {
  if (!parent()) return;  // the model is gone
  if (on) check_slot_free(!base_.stand_in);
  if (on) base_.stand_in = &weight;
  else if (base_.stand_in == &weight) base_.stand_in = nullptr;
}

void WholeHead::fold(nn::State&) const { refuse_untied(*this, base_, kHint); }

BiasPiece::BiasPiece(nn::Parameter& bias, nn::Module& base, std::string name, std::string place)
    : Piece(base, std::move(name), std::move(place)) {
  copy(bias);
}

}  // namespace stet::continual
