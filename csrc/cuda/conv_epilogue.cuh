// What becomes of a convolution's sum on its way to memory: activation(sum * scale + bias) and a residual, which is
// added before the activation or behind it, rounded once to what the result holds.
#pragma once

#include "activation.cuh"
#include "conv_index.cuh"
#include "float8.cuh"
#include "packet.cuh"
#include "stochastic.cuh"

namespace ulpgrad {

// What a result holds: the operands' type, or another that a float32 sum is rounded to.
enum Stored { OWN, FLOAT32, FLOAT16, BFLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2 };

// Results that are rounded by random words have no residual. What is given as one is not read then, and its strides
// number results in the order of the words: who asks where a residual lies has the place of a word for it.
struct After {
  Strides residual;
  int activation, residual_first, stored;
  Drawn drawn;
};

// In shared memory, one for a block: a thread's registers are for sums. Each of the arrays may be left out.
template <class T>
struct Epilogue {
  const T *bias, *scale;  // of each channel of the result
  const T* residual;
  After after;

  __device__ inline bool is_nothing() const { return !bias && !scale && !residual && !after.activation; }
};

// `at`: where the residual lies, or the result's random word. A call: a thread
// with many results would have its code as many times.
template <class T>
__device__ __attribute__((noinline)) Wide<T> scaled_and_joined(const Epilogue<T>& e, int channel, long long at,
                                                               Wide<T> sum) {
  if (e.scale) sum *= widen(e.scale[channel]);
  if (e.bias) sum += widen(e.bias[channel]);
  if constexpr (sizeof(sum) == sizeof(float)) {
    if (e.after.drawn.random_bits) return rounded_by_word(e.after.drawn, activated(sum, e.after.activation), at);
  }
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

// N neighbours as T, up to 16 bytes at a time.
template <class T, int N>
__device__ inline void store_rounded(T* to, const Packet<float, N>& values) {
  Packet<T, N> packet;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(values.values[i], packet.values[i]);
  store_packet(to, packet);
}

// N neighbours from `values` in another format than the operands': a call, so that who never needs it has no registers
// for it.
template <int N>
__device__ __attribute__((noinline)) inline void store_others(void* y, long long at, const float* values, int stored) {
  const Packet<float, N> packet = packet_at<float, N>(values);
  switch (stored) {
    case FLOAT32:
      store_rounded(static_cast<float*>(y) + at, packet);
      break;
    case FLOAT16:
      store_rounded(static_cast<Float16*>(y) + at, packet);
      break;
    case BFLOAT16:
      store_rounded(static_cast<Bfloat16*>(y) + at, packet);
      break;
    case FLOAT8_E4M3FN:
      store_rounded(static_cast<Float8<4>*>(y) + at, packet);
      break;
    default:
      store_rounded(static_cast<Float8<5>*>(y) + at, packet);
  }
}

__device__ __attribute__((noinline)) inline void store_other(void* y, long long at, float value, int stored) {
  switch (stored) {
    case FLOAT32:
      static_cast<float*>(y)[at] = value;
      break;
    case FLOAT16:
      narrow(value, static_cast<Float16*>(y)[at]);
      break;
    case BFLOAT16:
      narrow(value, static_cast<Bfloat16*>(y)[at]);
      break;
    case FLOAT8_E4M3FN:
      narrow(value, static_cast<Float8<4>*>(y)[at]);
      break;
    default:
      narrow(value, static_cast<Float8<5>*>(y)[at]);
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
