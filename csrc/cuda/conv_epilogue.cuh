// What becomes of a convolution's sum on its way to memory: activation(sum * scale + bias) and a residual, which is
// added before the activation or behind it, rounded once to what the result holds.
#pragma once

#include "activation.cuh"
#include "conv_index.cuh"

namespace ulpgrad {

// What a result holds: the operands' type, or another that a float32 sum is rounded to.
enum Stored { OWN, FLOAT32, FLOAT16, BFLOAT16 };

struct After {
  Strides residual;
  int activation, residual_first, stored;
};

// In shared memory, one for a block: a thread's registers are for sums. Each of the arrays may be left out.
template <class T>
struct Epilogue {
  const T *bias, *scale;  // of each channel of the result
  const T* residual;
  After after;

  __device__ inline bool is_nothing() const { return !bias && !scale && !residual && !after.activation; }
};

// `at`: where the residual lies. A call: a thread with many results would have its code as many times.
template <class T>
__device__ __attribute__((noinline)) Wide<T> scaled_and_joined(const Epilogue<T>& e, int channel, long long at,
                                                               Wide<T> sum) {
  if (e.scale) sum *= widen(e.scale[channel]);
  if (e.bias) sum += widen(e.bias[channel]);
  const Wide<T> other = e.residual ? widen(e.residual[at]) : Wide<T>(0);
  if (e.residual && e.after.residual_first) sum += other;
  sum = activated(sum, e.after.activation);
  if (e.residual && !e.after.residual_first) sum += other;
  return sum;
}

// offset() says where the residual lies, and is asked only if there is one.
template <class T, class Offset>
__device__ inline Wide<T> with_epilogue(const Epilogue<T>& e, int channel, const Offset& offset, Wide<T> sum) {
  if (e.scale || e.residual) return scaled_and_joined(e, channel, e.residual ? offset() : 0, sum);
  if (e.bias) sum += widen(e.bias[channel]);
  return activated(sum, e.after.activation);
}

__device__ __attribute__((noinline)) inline void store_other(void* y, long long at, float value, int stored) {
  switch (stored) {
    case FLOAT32:
      static_cast<float*>(y)[at] = value;
      break;
    case FLOAT16:
      static_cast<Float16*>(y)[at] = narrow<Float16>(value);
      break;
    default:
      static_cast<Bfloat16*>(y)[at] = narrow<Bfloat16>(value);
  }
}

template <class T>
__device__ inline void store_as(T* y, long long at, Wide<T> value, int stored) {
  if constexpr (sizeof(Wide<T>) == sizeof(float)) {
    if (stored != OWN) return store_other(y, at, value, stored);
  }
  y[at] = narrow<T>(value);
}

}  // namespace ulpgrad
