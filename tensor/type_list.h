// A list of types that tables, tests and kernels fold over.
#pragma once

#include <cstddef>
#include <type_traits>

namespace stet {

template <class... Ts> struct TypeList {
  static constexpr std::size_t size = sizeof...(Ts);

  /// Position of T; a compile error when T is not listed.
  template <class T> static constexpr std::size_t index = [] {
    constexpr bool same[] = {std::is_same_v<T, Ts>...};
    std::size_t i = 0;
    while (!same[i]) ++i;
    return i;
  }();

  /// f.operator()<T>() for every type of the list.
  template <class F> static constexpr void for_each(F&& f) { (f.template operator()<Ts>(), ...); }
};

}  // namespace stet
