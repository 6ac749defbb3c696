// A table of functions for each of the floating types that kernels take natively.
#pragma once

#include <type_traits>

#include "halves.h"

namespace ulpgrad {

template <template <typename> class Functions>
struct ForFloats {
  Functions<float> f32;
  Functions<double> f64;
  Functions<Bfloat16> bf16;
  Functions<Float16> f16;
};

// The functions of a table for T.
template <typename T, template <typename> class Functions>
const Functions<T>& of(const ForFloats<Functions>& table) {
  if constexpr (std::is_same_v<T, float>) {
    return table.f32;
  } else if constexpr (std::is_same_v<T, double>) {
    return table.f64;
  } else if constexpr (std::is_same_v<T, Bfloat16>) {
    return table.bf16;
  } else {
    return table.f16;
  }
}

}  // namespace ulpgrad
