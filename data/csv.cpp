// One pass over the bytes; each field is read to its end before the next begins.
#include <stet/data/csv.h>

#include <algorithm>

#include <stet/tensor/json_file.h>

namespace stet::data {
namespace {

class Reader {
 public:
  Reader(const std::filesystem::path& path, std::string_view op)
      : op_(op), name_(path.string()), bytes_(read_bytes(path, op)) {
    if (bytes_.starts_with("\xef\xbb\xbf")) at_ = 3;
    if (const std::size_t nul = bytes_.find('\0'); nul != std::string::npos) {
      line_ += std::count(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(nul), '\n');
      refuse("found a NUL byte, expected text");
    }
  }

  bool done() const { return at_ == bytes_.size(); }
  /// Whether only empty lines are left.
  bool blank() const {
    const std::string_view rest = std::string_view(bytes_).substr(at_);
    for (std::size_t i = 0; i < rest.size(); ++i)
      if (rest[i] != '\n' && (rest[i] != '\r' || !rest.substr(i + 1).starts_with('\n'))) return false;
    return true;
  }

  CsvRow row() {
    CsvRow out{line_, {}};
    do out.fields.push_back(peek() == '"' ? quoted_field() : plain_field());
    while (take(','));
    if (!done() && !take('\n')) {
      ++at_;  // what ends a field otherwise is CR
      if (!take('\n')) refuse("found a carriage return inside a line, expected it before a line feed or in quotes");
    }
    ++line_;
    return out;
  }

  template <class... Parts> [[noreturn]] void refuse(const Parts&... parts) const {
    fail(op_, name_, ": line ", line_, ": ", parts...);
  }

 private:
  char peek() const { return done() ? '\0' : bytes_[at_]; }
  bool take(char wanted) {
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }

  std::string plain_field() {
    const std::size_t end = std::min(bytes_.find_first_of(",\n\r\"", at_), bytes_.size());
    if (end < bytes_.size() && bytes_[end] == '"')
      refuse("found a quote inside a field, expected the whole field in quotes and \"\" for a quote");
    std::string out = bytes_.substr(at_, end - at_);
    at_ = end;
    return out;
  }

  std::string quoted_field() {
    std::string out;
    const std::size_t begin = ++at_;
    for (;;) {
      const std::size_t end = bytes_.find('"', at_);
      if (end == std::string::npos) refuse("found a quote that is never closed, expected another one");
      out.append(bytes_, at_, end - at_);
      at_ = end + 1;
      if (!take('"')) break;
      out += '"';
    }
    if (!done() && peek() != ',' && peek() != '\n' && peek() != '\r')
      refuse("found text behind a closing quote, expected a comma or the end of the line");
    line_ += std::count(bytes_.begin() + static_cast<std::ptrdiff_t>(begin),
                        bytes_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    return out;
  }

  std::string_view op_;
  std::string name_, bytes_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1;
};

}  // namespace

std::vector<CsvRow> read_csv(const std::filesystem::path& path, std::string_view op) {
  Reader reader(path, op);
  std::vector<CsvRow> rows;
  while (!reader.done()) {
    if (!rows.empty() && rows.front().fields.size() > 1 && reader.blank()) break;
    rows.push_back(reader.row());
    const std::size_t found = rows.back().fields.size(), first = rows.front().fields.size();
    check(found == first, op, path.string(), ": line ", rows.back().line, ": found ", found, " fields, expected ",
          first, " as in the first line");
  }
  return rows;
}

}  // namespace stet::data
