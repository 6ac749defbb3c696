// What happens to a tile of finished sums on their way into C, while they are in the cache nearest to the core: what C
// held is added, then the bias, the activation is applied, and the value is rounded to C's type.
#pragma once

#include "activation.h"
#include "halves_simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// Rows of n values from `sums` to `c`, which may be the same; `add`: to what c holds.
template <Activation activation, typename T>
static void finish_as(const Wide<T>* sums, int64_t sums_row, T* c, int64_t c_row, int64_t rows, int64_t n,
                      const T* bias, bool add) {
  using Sum = Wide<T>;
  constexpr int lanes = kLanes<Sum>;
  for (int64_t i = 0; i < rows; ++i, sums += sums_row, c += c_row) {
    int64_t j = 0;
    for (; j + lanes <= n; j += lanes) {
      Vec<Sum> x = load(sums + j);
      if (add) x += load_wide(c + j);
      if (bias) x += load_wide(bias + j);
      store_narrow(c + j, activate<activation>(x));
    }
    if (j < n) {
      Vec<Sum> x = load_some(sums + j, n - j);
      if (add) x += load_wide_some(c + j, n - j);
      if (bias) x += load_wide_some(bias + j, n - j);
      store_narrow_some(c + j, activate<activation>(x), n - j);
    }
  }
}

template <typename T>
static void finish(const Wide<T>* sums, int64_t sums_row, T* c, int64_t c_row, int64_t rows, int64_t n, const T* bias,
                   Activation activation, bool add) {
  switch (activation) {
    case Activation::none:
      return finish_as<Activation::none>(sums, sums_row, c, c_row, rows, n, bias, add);
    case Activation::relu:
      return finish_as<Activation::relu>(sums, sums_row, c, c_row, rows, n, bias, add);
    case Activation::gelu:
      return finish_as<Activation::gelu>(sums, sums_row, c, c_row, rows, n, bias, add);
    case Activation::silu:
      return finish_as<Activation::silu>(sums, sums_row, c, c_row, rows, n, bias, add);
    case Activation::tanh:
      return finish_as<Activation::tanh>(sums, sums_row, c, c_row, rows, n, bias, add);
    case Activation::sigmoid:
      return finish_as<Activation::sigmoid>(sums, sums_row, c, c_row, rows, n, bias, add);
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
