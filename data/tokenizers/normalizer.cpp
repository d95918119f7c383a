// The steps, one after the other over the whole text. BERT's follow its BasicTokenizer (google-research/bert,
// tokenization.py) as the Hugging Face library has it.
#include <stet/data/tokenizers/normalizer.h>

#include <cstdint>

#include <stet/data/tokenizers/unicode.h>

namespace stet::data::tokenizers {
namespace {

/// change(out, code_point) appends what a character becomes; a byte that is no character stays.
template <class Change> std::string changed(std::string_view text, Change change) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (c.value < 0) out += text[at];
    else change(out, c.value);
    at += c.length;
  }
  return out;
}

void clean(std::string& out, std::int32_t c) {
  if (c >= 0x20 && c < 0x7f) out += static_cast<char>(c);
  else if (c == '\t' || c == '\n' || c == '\r') out += ' ';
  else if (c == 0 || c == 0xfffd || is_control(c)) return;  // among them white space: VT, FF, U+0085
  else if (class_of(c) == CharClass::space) out += ' ';
  else append_utf8(out, c);
}

void space_cjk(std::string& out, std::int32_t c) {
  const bool ideograph = is_cjk_ideograph(c);
  if (ideograph) out += ' ';
  append_utf8(out, c);
  if (ideograph) out += ' ';
}

void lower(std::string& out, std::int32_t c) {
  if (c < 128) out += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  else append_lower(out, c);
}

void drop_marks(std::string& out, std::int32_t c) {
  if (!is_nonspacing_mark(c)) append_utf8(out, c);
}

std::string applied(Step step, std::string text) {
  switch (step) {
    case Step::nfc: return normalized(text, Form::nfc);
    case Step::nfd: return normalized(text, Form::nfd);
    case Step::nfkc: return normalized(text, Form::nfkc);
    case Step::nfkd: return normalized(text, Form::nfkd);
    case Step::lower: return changed(text, lower);
    case Step::bert_clean: return changed(text, clean);
    case Step::bert_cjk: return is_ascii(text) ? std::move(text) : changed(text, space_cjk);
    case Step::strip_accents:
      return is_ascii(text) ? std::move(text) : changed(normalized(text, Form::nfd), drop_marks);
  }
  return text;
}

}  // namespace

void Normalizer::add(const BertOptions& options) {
  if (options.clean) add(Step::bert_clean);
  if (options.cjk) add(Step::bert_cjk);
  if (options.strip_accents) add(Step::strip_accents);
  if (options.lower) add(Step::lower);
}

std::string Normalizer::operator()(std::string_view text) const {
  std::string out(text);
  for (const Step step : steps_) out = applied(step, std::move(out));
  return out;
}

}  // namespace stet::data::tokenizers
