// Unsigned keys that sort as values do: equal zeros, NaN above everything.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "bind.h"

namespace ulpgrad {

template <size_t bytes>
struct UnsignedOf;
template <>
struct UnsignedOf<1> {
  using type = uint8_t;
};
template <>
struct UnsignedOf<2> {
  using type = uint16_t;
};
template <>
struct UnsignedOf<4> {
  using type = uint32_t;
};
template <>
struct UnsignedOf<8> {
  using type = uint64_t;
};

template <typename T>
using Key = typename UnsignedOf<sizeof(T)>::type;

template <typename T>
inline Key<T> key_of(T value) {
  constexpr Key<T> sign = static_cast<Key<T>>(Key<T>{1} << (8 * sizeof(T) - 1));
  if constexpr (std::is_floating_point_v<T>) {
    if (value != value) return std::numeric_limits<Key<T>>::max();
    value += T{0};  // -0 becomes 0
  }
  Key<T> bits;
  std::memcpy(&bits, &value, sizeof bits);
  if constexpr (std::is_floating_point_v<T>) return bits & sign ? ~bits : bits | sign;
  return std::is_signed_v<T> ? static_cast<Key<T>>(bits ^ sign) : bits;
}

// work(T{}) with the type of the values of `a`; bools are bytes.
template <typename Work>
auto with_ordered(const py::array& a, const char* name, const Work& work) {
  const char kind = a.dtype().kind();
  const int64_t size = a.itemsize();
  if (py::isinstance<py::array_t<float>>(a)) return work(float{});
  if (py::isinstance<py::array_t<double>>(a)) return work(double{});
  if (kind == 'i' && a.dtype().byteorder() != '>') {
    if (size == 1) return work(int8_t{});
    if (size == 2) return work(int16_t{});
    if (size == 4) return work(int32_t{});
    return work(int64_t{});
  }
  if ((kind == 'u' || kind == 'b') && a.dtype().byteorder() != '>') {
    if (size == 1) return work(uint8_t{});
    if (size == 2) return work(uint16_t{});
    if (size == 4) return work(uint32_t{});
    return work(uint64_t{});
  }
  throw py::type_error(std::string(name) + ": expected float32, float64, integers or bools");
}

}  // namespace ulpgrad
