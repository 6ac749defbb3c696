// Matrix multiplication on strided operands, for every family that needs one.
//
//   Gemm<float> g;
//   g.m = ..., g.a = ..., g.a_row = ...;
//   table<GemmTable>(isa).f32(g);
//
// C = A B, or C += A B with `accumulate`. Products of 16-bit floats are exact, their sums float32, and C is rounded
// once. The result's bits do not depend on the number of threads: k is summed in blocks of fixed size, and threads
// share out rows and columns only.
#pragma once

#include <cstdint>

#include "halves.h"
#include "isa.h"

namespace ulpgrad {

// Applied to each finished value of C, after the bias.
enum class Activation : int { none, relu, gelu, silu, tanh, sigmoid };

template <typename T>
struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  const T* a = nullptr;  // a[i * a_row + p * a_col]
  int64_t a_row = 0, a_col = 1;
  const T* b = nullptr;  // b[p * b_row + j * b_col]
  int64_t b_row = 0, b_col = 1;
  T* c = nullptr;  // c[i * c_row + j]
  int64_t c_row = 0;
  bool accumulate = false;  // add to what C holds
  bool threaded = true;     // false: on the calling thread only, as inside a parallel region
  const T* bias = nullptr;  // n values added to each row, or none
  Activation activation = Activation::none;
};

struct GemmTable {
  void (*f32)(const Gemm<float>&);
  void (*f64)(const Gemm<double>&);
  void (*f16)(const Gemm<Float16>&);
  void (*bf16)(const Gemm<Bfloat16>&);       // widened to float32 while it is packed
  void (*bf16_dots)(const Gemm<Bfloat16>&);  // by VDPBF16PS: only if has_avx512_bf16()
};

ULPGRAD_TABLE(GemmTable, gemm_table)

}  // namespace ulpgrad
