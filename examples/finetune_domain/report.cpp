// The numbers of an experiment for people (table, comparison, pictures) and for programs (JSON).
#include "report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "table.h"

using namespace stet::continual;

namespace {

/// Over the seeds: value(losses of the seed, what they were before).
template <class Value> Spread over_seeds(const Experiment& e, const std::vector<Outcome>& results, const Value& value) {
  std::vector<double> values;
  for (std::size_t s = 0; s < results.size(); ++s) values.push_back(value(results[s], e.pretrained[s]));
  return spread_of(values);
}

TradeoffPoint point(const Experiment& e, std::size_t method, const std::string& label,
                    const std::function<const Losses&(const Outcome&)>& when) {
  const auto& results = e.results[method];
  return {
      label,
      over_seeds(e, results, [&](const Outcome& r, const Losses& before) { return before.domain - when(r).domain; }),
      over_seeds(e, results, [&](const Outcome& r, const Losses& before) { return when(r).general - before.general; })};
}

/// Each method over its strength.
std::vector<TradeoffCurve> curves(const Experiment& e) {
  std::vector<TradeoffCurve> out;
  for (std::size_t i = 0; i < e.methods.size(); ++i) {
    if (out.empty() || out.back().method != e.methods[i].name) out.push_back({e.methods[i].name, {}});
    out.back().points.push_back(
        point(e, i, e.methods[i].strength, [](const Outcome& r) -> const Losses& { return r.after; }));
  }
  return out;
}

/// The way there: the middle strength of each method that is trained, after each quarter of its steps.
std::vector<TradeoffCurve> ways(const Experiment& e) {
  std::vector<TradeoffCurve> out;
  for (std::size_t first = 0, last = 0; first < e.methods.size(); first = last) {
    while (last < e.methods.size() && e.methods[last].name == e.methods[first].name) ++last;
    const std::size_t i = (first + last) / 2, quarters = e.results[i][0].during.size();
    if (quarters == 0) continue;
    TradeoffCurve curve{e.methods[i].name + " " + e.methods[i].strength, {}};
    for (std::size_t q = 0; q < quarters; ++q)
      curve.points.push_back(point(e, i, std::to_string(25 * (q + 1)) + " %",
                                   [q](const Outcome& r) -> const Losses& { return r.during[q]; }));
    curve.points.push_back(point(e, i, "100 %", [](const Outcome& r) -> const Losses& { return r.after; }));
    out.push_back(curve);
  }
  return out;
}

/// JSON has no NaN and no infinity.
std::string json_number(double value) {
  std::ostringstream out;
  out.precision(6);
  if (std::isfinite(value)) out << value;
  else out << "null";
  return out.str();
}

}  // namespace

void print_report(const Names& names, const Experiment& e) {
  std::vector<double> general, domain;
  for (const Losses& l : e.pretrained) general.push_back(l.general), domain.push_back(l.domain);
  std::string others;
  for (const std::string& name : names.others) others += (others.empty() ? "" : ", ") + name;
  std::printf(
      "Pretrained on %s, fine-tuned on %s; loss in nats a byte on held-out text, mean ± deviation over seeds 1 to "
      "%zu.\n"
      "Before: %.3f on the general text, %.3f on the domain. Learned: the domain's fall. Forgotten: the general "
      "rise.\n%s\n",
      names.general.c_str(), names.domain.c_str(), e.pretrained.size(), mean_of(general), mean_of(domain),
      others.empty() ? "" : ("Others: mean rise on texts that were never trained on: " + others + ".\n").c_str());
  std::vector<std::string> head{"method", "strength", "learned", "forgotten"};
  if (!others.empty()) head.push_back("others");
  Table table(head);
  std::size_t i = 0;
  for (const auto& curve : curves(e))
    for (const auto& p : curve.points) {
      std::vector<std::string> row{curve.method, p.strength, cell(p.learned), cell(p.forgotten)};
      if (!others.empty())
        row.push_back(cell(over_seeds(e, e.results[i], [](const Outcome& o, const Losses& before) {
          return mean_of(o.after.others) - mean_of(before.others);
        })));
      table.add(row);
      ++i;
    }
  table.print();
}

void conclude(const Experiment& e, std::size_t plain) {
  const double learned =
      0.8 * point(e, plain, "", [](const Outcome& r) -> const Losses& { return r.after; }).learned.mean;
  std::vector<std::pair<double, std::string>> order;
  std::string more, less;
  for (const auto& curve : curves(e)) {
    const auto by = [&](Spread TradeoffPoint::*what) {
      return std::minmax_element(
          curve.points.begin(), curve.points.end(),
          [what](const TradeoffPoint& a, const TradeoffPoint& b) { return (a.*what).mean < (b.*what).mean; });
    };
    const auto [least, most] = by(&TradeoffPoint::forgotten);
    const auto named = [&](const TradeoffPoint& p) {
      char words[64];
      std::snprintf(words, sizeof words, " %+.3f for %+.3f (", p.forgotten.mean, p.learned.mean);
      return words + curve.method + (p.strength.empty() ? "" : " ") + p.strength + ")";
    };
    if (const auto forgotten = forgotten_at(curve, learned)) order.emplace_back(*forgotten, curve.method);
    else if (by(&TradeoffPoint::learned).first->learned.mean > learned)
      more += (more.empty() ? "" : ",") + named(*least);
    else less += (less.empty() ? "" : ",") + named(*most);
  }
  std::sort(order.begin(), order.end());
  std::printf("At the same gain on the domain (%.3f nats a byte) the general loss rises by", learned);
  for (std::size_t i = 0; i < order.size(); ++i)
    std::printf("%s %+.3f (%s)", i ? "," : "", order[i].first, order[i].second.c_str());
  std::printf(".\n");
  if (!more.empty()) std::printf("Learn more than that at every strength, and forget at the least:%s.\n", more.c_str());
  if (!less.empty()) std::printf("Never learn as much, and forget at the most:%s.\n", less.c_str());
}

void write_json(const std::filesystem::path& path, const Names& names, int pretraining, int steps,
                const Experiment& e) {
  std::ostringstream out;
  out.precision(6);
  out << "{\"domain\": " << std::quoted(names.domain) << ", \"general\": " << std::quoted(names.general)
      << ", \"unit\": \"nats a byte\", \"pretraining steps\": " << pretraining << ", \"steps\": " << steps
      << ",\n \"runs\": [";
  const char* separator = "\n";
  const auto row = [&](std::size_t seed, const Method& method, double part, const Losses& losses) {
    out << separator << "  {\"seed\": " << seed + 1 << ", \"method\": " << std::quoted(method.name)
        << ", \"strength\": " << std::quoted(method.strength) << ", \"part\": " << part
        << ", \"general\": " << json_number(losses.general) << ", \"domain\": " << json_number(losses.domain);
    if (!losses.others.empty()) out << ", \"others\": {";
    for (std::size_t k = 0; k < losses.others.size(); ++k)
      out << (k ? ", " : "") << std::quoted(names.others[k]) << ": " << json_number(losses.others[k]);
    out << (losses.others.empty() ? "}" : "}}");
    separator = ",\n";
  };
  for (std::size_t s = 0; s < e.pretrained.size(); ++s) {
    row(s, {.name = "pretrained", .strength = ""}, 0, e.pretrained[s]);
    for (std::size_t i = 0; i < e.methods.size(); ++i) {
      const Outcome& outcome = e.results[i][s];
      for (std::size_t q = 0; q < outcome.during.size(); ++q)
        row(s, e.methods[i], 0.25 * static_cast<double>(q + 1), outcome.during[q]);
      row(s, e.methods[i], 1, outcome.after);
    }
  }
  out << "\n ]}\n";
  write_text_file(path, out.str());
}

void write_pictures(const std::filesystem::path& folder, const Names& names, const Experiment& e) {
  const std::string x = "learned: fall of the domain's loss (nats a byte)",
                    y = "forgotten: rise of the general loss (nats a byte)",
                    title = names.general + ", then " + names.domain;
  write_tradeoff_svg(folder / "finetune_domain.svg", title, x, y, curves(e));
  if (const auto all = ways(e); !all.empty())
    write_tradeoff_svg(folder / "finetune_domain_during.svg", title + ": after each quarter of the steps", x, y, all);
}
