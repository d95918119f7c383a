// Learned against forgotten: one picture and one comparison for methods that each have a strength to turn.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <stet/continual/metrics.h>

namespace stet::continual {

/// One method at one strength, over several seeds.
struct TradeoffPoint {
  std::string strength;  ///< as it is written beside the point: "5 %"
  Spread learned;        ///< how much better the new skill became (loss before - loss after)
  Spread forgotten;      ///< how much worse the old one became (loss after - loss before)
};

/// A method's points, in the order of its strength.
struct TradeoffCurve {
  std::string method;
  std::vector<TradeoffPoint> points;
};

/// What the method forgets where it has learned `learned`: along straight lines between neighbouring points, the least
/// of them where there are several; nothing where no line passes there.
std::optional<double> forgotten_at(const TradeoffCurve& curve, double learned);

/// The plane as an SVG picture: x learned, y forgotten, a curve with its spread and a mark of its own for each method.
/// Colours are Okabe & Ito's (2008), told apart with and without colour blindness. An Error for no points, or for one
/// that is not finite.
void write_tradeoff_svg(const std::filesystem::path& path, const std::string& title, const std::string& x_axis,
                        const std::string& y_axis, const std::vector<TradeoffCurve>& curves);

}  // namespace stet::continual
