// A JSON file as one flat table of values: strict, without recursion, and able to say where each value stands.
// Private to the library.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <stet/tensor/error.h>

namespace stet {

/// The bytes of a file of at most 1 GiB; throws an Error naming `op` and the file.
std::string read_bytes(const std::filesystem::path& path, std::string_view op);

enum class JsonType : std::uint8_t { null, flag, integer, real, text, array, object };

/// Refused beyond JSON's own rules: duplicate keys, nesting deeper than 32, NUL bytes, text that is not UTF-8.
class JsonFile {
  struct Node {
    JsonType type;
    std::uint32_t offset, next;  // in the file; index of the node after this one and all within it
    std::uint32_t text = 0, count = 0;
    union {
      std::int64_t integer;
      double real;
      std::uint64_t text_size;
      bool flag;
    };
  };

 public:
  /// `op`, text that lives on, is the operation that errors name.
  JsonFile(const std::filesystem::path& path, std::string_view op);

  /// One value of the file. Its accessors throw an Error that names file, key path and byte if it is of another
  /// type. Valid as long as the file.
  class Value {
   public:
    JsonType type() const { return node().type; }
    bool is_null() const { return type() == JsonType::null; }
    std::string_view text() const;
    bool flag() const;
    double number() const;
    std::int64_t integer(std::int64_t low, std::int64_t high) const;
    std::size_t count() const { return node().count; }  // of an array's or object's members

    /// The member of an object: missing is an Error, or nothing.
    Value at(std::string_view key) const;
    std::optional<Value> find(std::string_view key) const;
    /// As find, and null is the same as missing.
    std::optional<Value> given(std::string_view key) const;
    /// Every key of the object must be one of these: what is not known may change the result.
    void expect_keys(std::initializer_list<std::string_view> known) const;

    /// visit(value) for an array, visit(key, value) for an object.
    template <class Visit> void for_each_item(Visit&& visit) const {
      expect(JsonType::array);
      for (std::uint32_t i = index_ + 1; i < node().next; i = file_->nodes_[i].next) visit(Value(file_, i));
    }
    template <class Visit> void for_each_member(Visit&& visit) const {
      expect(JsonType::object);
      for (std::uint32_t i = index_ + 1; i < node().next; i = file_->nodes_[i + 1].next)
        visit(file_->text_of(i), Value(file_, i + 1));
    }

    /// Throws "[OP] FILE: PATH near byte N: " and the parts.
    template <class... Parts> [[noreturn]] void refuse(const Parts&... parts) const {
      fail(file_->op_, file_->name_, ": ", path(), " near byte ", node().offset, ": ", parts...);
    }

   private:
    friend class JsonFile;
    Value(const JsonFile* file, std::uint32_t index) : file_(file), index_(index) {}
    const Node& node() const { return file_->nodes_[index_]; }
    void expect(JsonType type) const;
    std::string path() const;
    std::string shown() const;

    const JsonFile* file_;
    std::uint32_t index_;
  };

  Value root() const { return Value(this, 0); }
  const std::string& name() const { return name_; }

 private:
  friend class JsonBuilder;
  std::string_view text_of(std::uint32_t index) const {
    return std::string_view(texts_).substr(nodes_[index].text, nodes_[index].text_size);
  }

  std::string_view op_;
  std::string name_;
  std::vector<Node> nodes_;  // an object's members are pairs: the key as a text, the value
  std::string texts_;
};

/// Quoted and escaped for a message or a file; shortened to 80 bytes where `shorten` is set.
std::string quoted(std::string_view text, bool shorten = true);

}  // namespace stet
