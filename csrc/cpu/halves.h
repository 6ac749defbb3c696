// The 16-bit floats as types of their own: both are stored as their bits, and computed with as float32.
#pragma once

#include <cstdint>

namespace ulpgrad {

struct Bfloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

// What sums of T are held in.
template <typename T>
struct WideOf {
  using type = T;
};
template <>
struct WideOf<Bfloat16> {
  using type = float;
};
template <>
struct WideOf<Float16> {
  using type = float;
};

template <typename T>
using Wide = typename WideOf<T>::type;

}  // namespace ulpgrad
