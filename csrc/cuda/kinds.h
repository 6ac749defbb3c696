// What a kernel's parameters are, told as text: pointers, integers, floats and structures, each with its size.
#pragma once

#include <string>
#include <type_traits>

namespace ulpgrad {

template <class T>
constexpr char kind_of() {
  if (std::is_pointer_v<T>) return 'p';
  if (std::is_floating_point_v<T>) return 'f';
  return std::is_integral_v<T> ? 'i' : 's';
}

// As in "p8 i4 f4 s96".
template <class... Ts>
std::string kinds_of(void (*)(Ts...)) {
  std::string found;
  ((found += (found.empty() ? "" : " ") + std::string(1, kind_of<Ts>()) + std::to_string(sizeof(Ts))), ...);
  return found;
}

}  // namespace ulpgrad
