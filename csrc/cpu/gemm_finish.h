// What happens to a tile of finished sums on their way into C, while they are in the cache nearest to the core: the
// epilogue, and rounding to the type that C holds.
#pragma once

#include <type_traits>

#include "activation.h"
#include "halves_simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// Rows of n values from `sums` to `c`, which may be the same. They stand in C from (i, j) on.
template <Activation activation, typename T, typename Out>
static void finish_as(const Wide<T>* sums, int64_t sums_row, Out* c, int64_t c_row, int64_t rows, int64_t n,
                      const Epilogue<T>& after, int64_t i, int64_t j) {
  using Sum = Wide<T>;
  constexpr int lanes = kLanes<Sum>;
  const bool scales = after.scales();
  const Vec<Sum> factor = broadcast(after.factor);
  const T* const scale = after.scale ? after.scale + j : nullptr;
  const T* const bias = after.bias ? after.bias + j : nullptr;
  const T* residual = after.residual ? after.residual + i * after.residual_row + j : nullptr;
  for (int64_t r = 0; r < rows; ++r, sums += sums_row, c += c_row) {
    int64_t x = 0;
    for (; x + lanes <= n; x += lanes) {
      Vec<Sum> y = load(sums + x);
      if (scales) y *= scale ? factor * load_wide(scale + x) : factor;
      if (bias) y += load_wide(bias + x);
      y = activate<activation>(y);
      if (residual) y += load_wide(residual + x);
      store_narrow(c + x, y);
    }
    if (x < n) {
      Vec<Sum> y = load_some(sums + x, n - x);
      if (scales) y *= scale ? factor * load_wide_some(scale + x, n - x) : factor;
      if (bias) y += load_wide_some(bias + x, n - x);
      y = activate<activation>(y);
      if (residual) y += load_wide_some(residual + x, n - x);
      store_narrow_some(c + x, y, n - x);
    }
    if (residual) residual += after.residual_row;
  }
}

template <typename T, typename Out>
static void finish(const Wide<T>* sums, int64_t sums_row, Out* c, int64_t c_row, int64_t rows, int64_t n,
                   const Epilogue<T>& after, int64_t i, int64_t j) {
  switch (after.activation) {
    case Activation::none:
      return finish_as<Activation::none, T>(sums, sums_row, c, c_row, rows, n, after, i, j);
    case Activation::relu:
      return finish_as<Activation::relu, T>(sums, sums_row, c, c_row, rows, n, after, i, j);
    case Activation::gelu:
      return finish_as<Activation::gelu, T>(sums, sums_row, c, c_row, rows, n, after, i, j);
    case Activation::silu:
      return finish_as<Activation::silu, T>(sums, sums_row, c, c_row, rows, n, after, i, j);
    case Activation::tanh:
      return finish_as<Activation::tanh, T>(sums, sums_row, c, c_row, rows, n, after, i, j);
    case Activation::sigmoid:
      return finish_as<Activation::sigmoid, T>(sums, sums_row, c, c_row, rows, n, after, i, j);
  }
}

// Rows of sums rounded to Out.
template <typename Out>
static void store_rows(const float* sums, int64_t sums_row, Out* c, int64_t c_row, int64_t rows, int64_t n) {
  constexpr int lanes = kLanes<float>;
  for (int64_t r = 0; r < rows; ++r, sums += sums_row, c += c_row) {
    int64_t x = 0;
    for (; x + lanes <= n; x += lanes) store_narrow(c + x, load(sums + x));
    if (x < n) store_narrow_some(c + x, load_some(sums + x, n - x), n - x);
  }
}

// The tile of C from (i, j) on gets its finished sums, which are overwritten where C holds another type than T.
template <typename T>
static void write_out(const Gemm<T>& g, Wide<T>* sums, int64_t sums_row, int64_t i, int64_t j, int64_t rows,
                      int64_t n) {
  const int64_t at = i * g.c_row + j;
  if (g.stored == Stored::own) return finish(sums, sums_row, g.c + at, g.c_row, rows, n, g.after, i, j);
  if constexpr (std::is_same_v<Wide<T>, float>) {
    if (!g.after.nothing()) finish(sums, sums_row, sums, sums_row, rows, n, g.after, i, j);
    switch (g.stored) {
      case Stored::float16:
        return store_rows(sums, sums_row, static_cast<Float16*>(g.other) + at, g.c_row, rows, n);
      case Stored::bfloat16:
        return store_rows(sums, sums_row, static_cast<Bfloat16*>(g.other) + at, g.c_row, rows, n);
      default:
        return store_rows(sums, sums_row, static_cast<float*>(g.other) + at, g.c_row, rows, n);
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
