// The matmul ladder: C = A B of row-major float32 matrices, from three loops to threads, one idea per file. The rung
// above them all is isa/gemm.cpp, which takes any strides, formats and shapes.
//
// Shares of the FMA peak of one core (117 GFLOP/s, Zen 4 with AVX-512) at 1024 x 1024 x 1024: loops 0.5 %, rows 33 %,
// blocks 40 %, tile 71 %, packed 89 %; threads 82 % of both cores.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

struct Product {
  int64_t m, n, k;
  const float *a, *b;
  float *c, *work;  // work: memory for packed operands
};

using Multiply = void (*)(const Product&);

struct MatmulLadder {
  Multiply loops, rows, blocks, tile, packed, threads;
};

ULPGRAD_TABLE(MatmulLadder, matmul_ladder)

constexpr int64_t kLadderWidth = 32, kLadderHeight = 14;  // the largest tile of any instruction set

// A block of A (in the L2 cache; whole tiles of 14 or of 6 rows) and of B (in the L3 cache), and the memory for both.
constexpr int64_t kLadderBlockM = 168, kLadderBlockN = 1024, kLadderBlockK = 1024;
constexpr int64_t kLadderWork = kLadderBlockK * (kLadderBlockM + kLadderBlockN);

#ifdef ULPGRAD_ISA
namespace ULPGRAD_ISA {
void multiply_loops(const Product&);
void multiply_rows(const Product&);
void multiply_blocks(const Product&);
void multiply_tile(const Product&);
void multiply_packed(const Product&);
void multiply_threads(const Product&);

// Rows [i0, i1) and columns [j0, j1) of C as `rows` does them: what whole tiles leave over.
void multiply_part(const Product&, int64_t i0, int64_t i1, int64_t j0, int64_t j1);
}  // namespace ULPGRAD_ISA
#endif

}  // namespace ulpgrad
