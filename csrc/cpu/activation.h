// Activations, as a matrix product applies them to its finished values.
#pragma once

#include "gemm.h"
#include "isa/vector_math.h"

namespace ulpgrad::ULPGRAD_ISA {

// The vector operation an activation stands for. NaN stays NaN: comparisons with it are false.
template <Activation activation, typename V>
ULPGRAD_INLINE V activate(V x) {
  switch (activation) {
    case Activation::relu:
      return x < 0 ? V{} : x;
    case Activation::gelu:
      return x * vm::normal_cdf(x);
    case Activation::silu:
      return x * vm::sigmoid(x);
    case Activation::tanh:
      return vm::tanh(x);
    case Activation::sigmoid:
      return vm::sigmoid(x);
    default:
      return x;
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
