// Activations of finished sums.
#pragma once

#include "device.cuh"

namespace ulpgrad {

// As kernels/conv/cuda_arguments.py numbers them; 0 is none. NaN stays NaN: comparisons with it are false.
enum Activation { RELU = 1, GELU, SILU, TANH, SIGMOID };

__device__ __attribute__((noinline)) inline float activated_by(float v, int activation) {
  switch (activation) {
    case RELU:
      return v < 0 ? 0 : v;
    case GELU:
      return 0.5f * v * erfcf(-v * 0.70710678f);
    case SILU:
      return v / (1 + expf(-v));
    case TANH:
      return tanhf(v);
    default:
      return 1 / (1 + expf(-v));
  }
}

__device__ __attribute__((noinline)) inline double activated_by(double v, int activation) {
  switch (activation) {
    case RELU:
      return v < 0 ? 0 : v;
    case GELU:
      return 0.5 * v * erfc(-v * 0.70710678118654752);
    case SILU:
      return v / (1 + exp(-v));
    case TANH:
      return tanh(v);
    default:
      return 1 / (1 + exp(-v));
  }
}

// A call: a thread with many results would have the code of all of these as many times.
template <class S>
__device__ inline S activated(S v, int activation) {
  return activation ? activated_by(v, activation) : v;
}

}  // namespace ulpgrad
