// SVG elements.
#include <stet/continual/svg.h>

#include <sstream>

namespace stet::continual::svg {

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;  // control characters are not allowed in XML
    }
  return out;
}

void text(std::ostream& out, double x, double y, std::string_view attributes, const std::string& words) {
  out << "<text x=\"" << x << "\" y=\"" << y << "\" " << attributes << '>' << escaped(words) << "</text>\n";
}

void turned(std::ostream& out, double x, double y, std::string_view style, int degrees, const std::string& words) {
  std::ostringstream attributes;
  attributes << "class=\"" << style << "\" transform=\"rotate(" << degrees << ' ' << x << ' ' << y << ")\"";
  text(out, x, y, attributes.str(), words);
}

void open(std::ostream& out, int width, int height, const std::string& title, std::string_view styles) {
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" << width << "\" height=\"" << height
      << "\" viewBox=\"0 0 " << width << ' ' << height << "\" role=\"img\" aria-label=\"" << escaped(title)
      << "\" font-family=\"'DejaVu Sans', Verdana, sans-serif\">\n<style>" << styles
      << "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
}

}  // namespace stet::continual::svg
