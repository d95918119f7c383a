// What happens to a text before it is cut into pieces. Private to data/tokenizers/.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace stet::data::tokenizers {

enum class Step {
  nfc,
  nfd,
  nfkc,
  nfkd,
  lower,          // every character, without context
  bert_clean,     // control characters and U+FFFD go, but tab and line ends, as all white space, become spaces
  bert_cjk,       // spaces around CJK ideographs
  strip_accents,  // nonspacing marks go, after canonical decomposition
};

struct BertOptions {
  bool clean = true, cjk = true, strip_accents = true, lower = true;
};

class Normalizer {
 public:
  void add(Step step) { steps_.push_back(step); }
  void add(const BertOptions& options);
  bool empty() const { return steps_.empty(); }
  const std::vector<Step>& steps() const { return steps_; }
  std::string operator()(std::string_view text) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace stet::data::tokenizers
