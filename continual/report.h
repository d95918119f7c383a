// Results for people and for programs: tables, a results file, a picture of accuracy matrices.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <stet/continual/learner.h>

namespace stet::continual {

/// One run for the record.
struct Run {
  std::string label;  ///< what was compared: "replay 500"
  std::uint64_t seed = 0;
  Result result;
};

/// One accuracy matrix with its title.
struct HeatMap {
  std::string title;
  AccuracyMatrix matrix;
  std::vector<std::string> tasks;  ///< names; numbers where there are none
};

/// The runs of one label in one setting.
struct Summary {
  Setting setting = Setting::class_incremental;
  std::string label;
  int runs = 0;
  Spread accuracy, forgetting,
      seconds;  ///< ACC and forgetting 0..1; seconds of training, ends of tasks included
};
/// By setting and label, in the order of first appearance.
std::vector<Summary> summarise(const std::vector<Run>& runs);

/// A table for people: ACC and forgetting in percent and seconds, mean ± sample standard deviation over the
/// runs; "–" where there is no number.
std::string table(const std::vector<Summary>& summaries);
/// Matrices in percent beside each other, each under its title: a row for each task learned, a column for
/// each task.
std::string table(const std::vector<HeatMap>& maps);

/// All runs with their matrices, the summaries and the definitions of the metrics, as JSON. NaN is null.
/// `about`: what the results came from (command, options, versions). Replaces the file as a whole.
void write_results_json(const std::filesystem::path& path, const std::vector<Run>& runs,
                        const std::map<std::string, std::string>& about = {});

/// Heat maps with numbers in percent as an SVG picture, `columns` beside each other. The colours (cividis,
/// Nuñez et al. 2018) look alike to people with and without colour blindness and fall in order of lightness.
/// NaN is "–".
void write_accuracy_matrices_svg(const std::filesystem::path& path, const std::string& title,
                                 const std::vector<HeatMap>& maps, int columns);
/// The same for one matrix.
void write_accuracy_matrix_svg(const std::filesystem::path& path, const AccuracyMatrix& matrix,
                               const std::string& title, const std::vector<std::string>& tasks = {});

/// Makes the folder where it is missing. Called before a long run, it is an Error now rather than after the work that
/// nothing can be written there.
void make_folder(const std::filesystem::path& folder);

/// Writes the text beside `path` and renames it over it. An Error names the file.
void write_text_file(const std::filesystem::path& path, std::string_view text);

}  // namespace stet::continual
