// Matrix multiplication on strided operands, for every family that needs one.
//
//   Gemm<float> g;
//   g.m = ..., g.a = ..., g.a_row = ...;
//   table<GemmTable>(isa).f32(g);
//
// C = A B. Products of 16-bit floats are exact, their sums float32, and C is rounded once. The result's bits do not
// depend on the number of threads: k is summed in blocks of fixed size, whose sums are added up in order.
#pragma once

#include <cstdint>

#include "halves.h"
#include "isa.h"

namespace ulpgrad {

enum class Activation : int { none, relu, gelu, silu, tanh, sigmoid };

// What becomes of a finished sum on its way into C: activation(sum * factor * scale + bias) + residual.
template <typename T>
struct Epilogue {
  Wide<T> factor = 1;
  const T* scale = nullptr;  // n values, one for each column, or none
  const T* bias = nullptr;   // the same
  Activation activation = Activation::none;
  const T* residual = nullptr;  // residual[i * residual_row + j], or none
  int64_t residual_row = 0;

  bool scales() const { return scale || factor != 1; }
  bool nothing() const { return !scales() && !bias && !residual && activation == Activation::none; }
};

// What C holds: the operands' type, or another that a product of float32 sums is rounded to.
enum class Stored : int { own, float32, float16, bfloat16 };

template <typename T>
struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  const T* a = nullptr;  // a[i * a_row + p * a_col]
  int64_t a_row = 0, a_col = 1;
  const T* b = nullptr;  // b[p * b_row + j * b_col]
  int64_t b_row = 0, b_col = 1;
  const void* packed = nullptr;  // B as `pack` of the same function wrote it: then b serves products of a few rows only
  T* c = nullptr;                // c[i * c_row + j]
  int64_t c_row = 0;
  Stored stored = Stored::own;
  void* other = nullptr;  // instead of c, unless `stored` is own
  bool threaded = true;   // false: on the calling thread only, as inside a parallel region
  Epilogue<T> after;
};

// A product; and for a B that serves many, its panels in the order in which tiles read them, written once.
template <typename T>
struct GemmFunction {
  void (*run)(const Gemm<T>&);
  int64_t (*packed_bytes)(int64_t n, int64_t k);
  void (*pack)(const Gemm<T>&, void* to);  // of n, k and b

  void operator()(const Gemm<T>& g) const { run(g); }
};

struct GemmTable {
  GemmFunction<float> f32;
  GemmFunction<double> f64;
  GemmFunction<Float16> f16;
  GemmFunction<Bfloat16> bf16;       // widened to float32 while it is packed
  GemmFunction<Bfloat16> bf16_dots;  // by VDPBF16PS: only if has_avx512_bf16()
};

ULPGRAD_TABLE(GemmTable, gemm_table)

}  // namespace ulpgrad
