// What every CUDA source begins with: numbers as the kernels see them. The same text is compiled by NVRTC, by nvcc and,
// through host.h, by a C++ compiler for the host; so it includes no header of CUDA's.
#pragma once

#ifndef __CUDACC__
#include "host.h"
#endif

namespace ulpgrad {

using Index = long long;

#ifdef __CUDACC__
// Shared memory whose size the launch gives, as `unsigned char name[]`, aligned for whatever is copied there.
#define ULPGRAD_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#else
#define ULPGRAD_DYNAMIC_SHARED(name) unsigned char* const name = ::ulpgrad::host::dynamic_shared()
#endif

template <class T>
__host__ __device__ constexpr T cdiv(T a, T b) {
  return (a + b - 1) / b;
}

// The 16-bit floats are stored as their bits, and computed with as float.
struct Float16 {
  unsigned short bits;
};

struct Bfloat16 {
  unsigned short bits;
};

// What values of T are computed with and summed in.
template <class T>
struct WideOf {
  using type = T;
};
template <>
struct WideOf<Float16> {
  using type = float;
};
template <>
struct WideOf<Bfloat16> {
  using type = float;
};

template <>
struct WideOf<unsigned char> {
  using type = unsigned;
};
template <>
struct WideOf<unsigned short> {
  using type = unsigned;
};

template <class T>
using Wide = typename WideOf<T>::type;

#ifdef __CUDACC__

__device__ inline float widen(Float16 x) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
}

__device__ inline void narrow(float value, Float16& x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x.bits) : "f"(value)); }

#else

inline float widen(Float16 x) {
  const unsigned sign = (x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | magnitude << 13);
  return __uint_as_float(sign | __float_as_uint(__uint_as_float(magnitude << 13) * 0x1p112f));  // exact: subnormals too
}

inline void narrow(float value, Float16& x) {
  const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  unsigned found;
  if (magnitude > 0x7f800000u) {
    found = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above
    found = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // subnormal: 0.5 has the spacing of its last bit
    found = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    found = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  }
  x.bits = static_cast<unsigned short>(sign | found);
}

#endif

__device__ inline float widen(Bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

// To nearest even by the bits; the instruction for it begins with sm_80.
__device__ inline void narrow(float value, Bfloat16& x) {
  const unsigned bits = __float_as_uint(value);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  x.bits = static_cast<unsigned short>((is_nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline void narrow(float value, float& x) { x = value; }
__device__ inline void narrow(double value, double& x) { x = value; }

// Integers wrap, so that signed and unsigned ones of a width are one: what is added and multiplied are their bits.
__device__ inline unsigned widen(unsigned char x) { return x; }
__device__ inline unsigned widen(unsigned short x) { return x; }
__device__ inline unsigned widen(unsigned x) { return x; }
__device__ inline unsigned long long widen(unsigned long long x) { return x; }
__device__ inline void narrow(unsigned value, unsigned char& x) { x = static_cast<unsigned char>(value); }
__device__ inline void narrow(unsigned value, unsigned short& x) { x = static_cast<unsigned short>(value); }
__device__ inline void narrow(unsigned value, unsigned& x) { x = value; }
__device__ inline void narrow(unsigned long long value, unsigned long long& x) { x = value; }

template <class T>
__device__ inline T narrow(Wide<T> value) {
  T x;
  narrow(value, x);
  return x;
}

}  // namespace ulpgrad
