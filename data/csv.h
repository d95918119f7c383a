// Comma-separated values, strictly: a field that is cut in the wrong place would be another text or another label.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace stet::data {

struct CsvRow {
  std::int64_t line;  ///< where it begins, from 1
  std::vector<std::string> fields;
};

/// The rows of a file as RFC 4180 has them: fields between commas, lines that end in LF or CR LF (the last may end with
/// the file), fields in double quotes with "" for a quote, in which commas and line ends are text. A byte order mark is
/// passed over, and so are empty lines at the end where a row has more than one field. An Error naming `op`, file and
/// line for a quote that never ends or stands elsewhere, text behind a closing quote, a CR without LF, a NUL byte, and
/// a row with more or fewer fields than the first.
std::vector<CsvRow> read_csv(const std::filesystem::path& path, std::string_view op = "read_csv");

}  // namespace stet::data
