// SVG elements.
#include <stet/continual/svg.h>

#include <algorithm>
#include <locale>

#include <utf8proc.h>

namespace stet::continual::svg {

std::string escaped(const std::string& text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    utf8proc_int32_t c = -1;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                                         static_cast<utf8proc_ssize_t>(text.size() - at), &c);
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '"') out += "&quot;";
    else if (c >= 0 && c < 0x20) out += ' ';                        // control characters are not allowed in XML
    else if (c < 0 || c == 0xfffe || c == 0xffff) out += "\uFFFD";  // neither are these, nor bytes that are not UTF-8
    else out.append(text, at, static_cast<std::size_t>(length));
    at += static_cast<std::size_t>(std::max<utf8proc_ssize_t>(length, 1));
  }
  return out;
}

std::ostringstream picture() {
  std::ostringstream out;
  out.imbue(std::locale::classic());  // a program's own may write 1,517 for 1517
  return out;
}

void text(std::ostream& out, double x, double y, std::string_view attributes, const std::string& words) {
  out << "<text x=\"" << x << "\" y=\"" << y << "\" " << attributes << '>' << escaped(words) << "</text>\n";
}

void turned(std::ostream& out, double x, double y, std::string_view style, int degrees, const std::string& words) {
  auto attributes = picture();
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
