// What the pictures share. Private to continual/.
#pragma once

#include <ostream>
#include <sstream>
#include <string>
#include <string_view>

namespace stet::continual::svg {

/// Text as XML content; what cannot be written there is replaced.
std::string escaped(const std::string& text);
/// Where a picture is written: numbers look the same in every locale.
std::ostringstream picture();
/// A text element; `attributes` is XML.
void text(std::ostream& out, double x, double y, std::string_view attributes, const std::string& words);
/// The same, turned by `degrees` about (x, y), of a style class.
void turned(std::ostream& out, double x, double y, std::string_view style, int degrees, const std::string& words);
/// Opens the picture on a white ground; `styles` is CSS.
void open(std::ostream& out, int width, int height, const std::string& title, std::string_view styles);

}  // namespace stet::continual::svg
