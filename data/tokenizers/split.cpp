// The pre-tokenisation patterns. A regular expression takes its first alternative that matches and each repetition
// as far as it goes; the functions below try the alternatives in the same order.
#include <stet/data/tokenizers/split.h>

#include <stet/data/tokenizers/unicode.h>
#include <stet/tensor/error.h>

namespace stet::data::tokenizers {
namespace {

/// A place in the text and what stands there.
struct Cursor {
  std::string_view text;
  std::size_t at;
  std::int32_t value = -1;
  std::uint32_t length = 0;  // 0 at the end
  CharClass kind = CharClass::other;

  Cursor(std::string_view whole, std::size_t start) : text(whole), at(start) { look(); }
  bool ended() const { return length == 0; }
  bool is(CharClass wanted) const { return !ended() && kind == wanted; }
  bool is_line_end() const { return !ended() && (value == '\r' || value == '\n'); }
  void step() {
    at += length;
    look();
  }
  void skip(CharClass wanted) {
    while (is(wanted)) step();
  }

 private:
  void look() {
    length = 0;
    if (at >= text.size()) return;
    const CodePoint c = code_point_at(text, at);
    value = c.value;
    length = c.length;
    kind = class_of(value);
  }
};

/// The letter that a character is when case is ignored; U+017F, the long s, folds to s.
char folded(std::int32_t value) {
  if (value == 0x17f) return 's';
  if (value >= 'A' && value <= 'Z') return static_cast<char>(value - 'A' + 'a');
  return value >= 'a' && value <= 'z' ? static_cast<char>(value) : '\0';
}

/// The end of 's 't 're 've 'm 'll 'd, or `at` where none stands.
std::size_t contraction_end(std::string_view text, std::size_t at, bool any_case) {
  Cursor c(text, at);
  if (c.value != '\'') return at;
  c.step();
  const auto letter = [&]() -> char {
    if (c.ended()) return '\0';
    if (any_case) return folded(c.value);
    return c.value >= 'a' && c.value <= 'z' ? static_cast<char>(c.value) : '\0';
  };
  const char first = letter();
  if (first == '\0') return at;
  c.step();
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return c.at;
  const char second = letter();
  if (second == '\0') return at;
  c.step();
  const bool two =
      (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
  return two ? c.at : at;
}

/// \s+(?!\S)|\s+ : all white space up to the end of the text, else all but the last character, which goes with
/// what follows, but at least one.
std::size_t space_end(Cursor c) {
  std::size_t last = c.at, count = 0;
  for (; c.is(CharClass::space); c.step(), ++count) last = c.at;
  return c.ended() || count == 1 ? c.at : last;
}

std::size_t gpt2_end(std::string_view text, std::size_t at) {
  if (const std::size_t end = contraction_end(text, at, false); end != at) return end;
  Cursor c(text, at);
  Cursor word = c;
  if (word.value == ' ') word.step();
  if (word.ended() || word.kind == CharClass::space) return space_end(c);
  word.skip(word.kind);
  return word.at;
}

std::size_t llama3_end(std::string_view text, std::size_t at, int digits) {
  if (const std::size_t end = contraction_end(text, at, true); end != at) return end;
  const Cursor start(text, at);
  Cursor word = start;  // [^\r\n\p{L}\p{N}]?\p{L}+
  if (!start.is_line_end() && !start.is(CharClass::letter) && !start.is(CharClass::number)) word.step();
  if (word.is(CharClass::letter)) {
    word.skip(CharClass::letter);
    return word.at;
  }
  if (start.is(CharClass::number)) {
    Cursor number = start;
    for (int i = 0; i < digits && number.is(CharClass::number); ++i) number.step();
    return number.at;
  }
  Cursor marks = start;  //  ?[^\s\p{L}\p{N}]+[\r\n]*
  if (marks.value == ' ') marks.step();
  if (marks.is(CharClass::other)) {
    marks.skip(CharClass::other);
    while (marks.is_line_end()) marks.step();
    return marks.at;
  }
  std::size_t line_end = at;  // \s*[\r\n]+
  for (Cursor c = start; c.is(CharClass::space);) {
    const bool ends_line = c.is_line_end();
    c.step();
    if (ends_line) line_end = c.at;
  }
  return line_end != at ? line_end : space_end(start);
}

std::size_t digits_end(std::string_view text, std::size_t at) {
  Cursor c(text, at);
  const bool number = c.is(CharClass::number);
  do c.step();
  while (!number && !c.ended() && !c.is(CharClass::number));
  return c.at;
}

bool is_bert_mark(const Cursor& c) {
  const bool ascii_mark = c.value >= 33 && c.value <= 126 && c.kind == CharClass::other;
  return ascii_mark || (c.value >= 128 && is_punctuation(c.value));
}

std::size_t bert_end(std::string_view text, std::size_t at) {
  Cursor c(text, at);
  if (c.is(CharClass::space)) {
    c.skip(CharClass::space);
    return c.at;
  }
  const bool mark = is_bert_mark(c);
  do c.step();
  while (!mark && !c.ended() && !c.is(CharClass::space) && !is_bert_mark(c));
  return c.at;
}

}  // namespace

std::string_view regex_of(Split split) {
  switch (split) {
    case Split::gpt2: return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
    case Split::llama3:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
             R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
    case Split::qwen2:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
             R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
    case Split::digits:
    case Split::bert: return {};
  }
  fail<BugError>("tokenizer", "no such split");
}

std::size_t piece_end(Split split, std::string_view text, std::size_t at) {
  switch (split) {
    case Split::gpt2: return gpt2_end(text, at);
    case Split::llama3: return llama3_end(text, at, 3);
    case Split::qwen2: return llama3_end(text, at, 1);
    case Split::digits: return digits_end(text, at);
    case Split::bert: return bert_end(text, at);
  }
  fail<BugError>("tokenizer", "no such split");
}

bool is_dropped(Split split, std::string_view text, std::size_t at) {
  return split == Split::bert && class_of(code_point_at(text, at).value) == CharClass::space;
}

}  // namespace stet::data::tokenizers
