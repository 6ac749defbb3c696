// Integers multiply and wrap in vectors of their own: a panel of B is packed for the tiles of attention_multiply.h,
// which take numbers of any kind.
#include "integer_words.h"

#include "attention_multiply.h"
#include "scratch.h"

namespace ulpgrad::ULPGRAD_ISA {

// Packs columns [j, j + columns) of steps [p, p + steps) of B, with zeros up to `width`.
template <typename T>
static const T* pack(const WordBlock<T>& x, int64_t p, int64_t steps, int64_t j, int64_t columns, int64_t width,
                     T* packed) {
  for (int64_t q = 0; q < steps; ++q) {
    const T* const from = x.b + (p + q) * x.b_row + j * x.b_column;
    for (int64_t e = 0; e < columns; ++e) packed[q * width + e] = from[e * x.b_column];
    for (int64_t e = columns; e < width; ++e) packed[q * width + e] = 0;
  }
  return packed;
}

// c[rows][columns] += block[rows][width]
template <typename T>
static void add_block(const T* block, int64_t width, int64_t rows, int64_t columns, T* c, int64_t c_row) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) c[i * c_row + j] = static_cast<T>(c[i * c_row + j] + block[i * width + j]);
}

template <typename T>
static void multiply_words(const WordBlock<T>& x) {
  constexpr int64_t lanes = kLanes<T>, size = sizeof(T);
  T* const packed = static_cast<T*>(scratch(Slot::gemm_b, (kWordSteps + kWordRows) * kWordColumns * sizeof(T)));
  T* const block = packed + kWordSteps * kWordColumns;  // where the last panel's results come with columns too many
  for (int64_t i = 0; i < x.m; ++i) __builtin_memset(x.c + i * x.c_row, 0, static_cast<size_t>(x.n) * sizeof(T));
  for (int64_t p = 0; p < x.k; p += kWordSteps) {
    const int64_t steps = x.k - p < kWordSteps ? x.k - p : kWordSteps;
    for (int64_t j = 0; j < x.n; j += kWordColumns) {
      const int64_t columns = x.n - j < kWordColumns ? x.n - j : kWordColumns;
      const int64_t width = (columns + lanes - 1) / lanes * lanes;
      const bool whole = width == columns, stands = whole && x.m <= kWordFew && x.b_column == 1;
      const T* const panel = stands ? x.b + p * x.b_row + j : pack(x, p, steps, j, columns, width, packed);
      for (int64_t i = 0; i < x.m; i += kWordRows) {
        const int64_t rows = x.m - i < kWordRows ? x.m - i : kWordRows;
        T* const c = x.c + i * x.c_row + j;
        if (!whole) __builtin_memset(block, 0, static_cast<size_t>(rows * width) * sizeof(T));
        multiply<Numbers<T>>({rows, width, steps, x.a + i * x.a_row + p * x.a_column, x.a_row * size, x.a_column * size,
                              panel, stands ? x.b_row : width},
                             whole ? Add<T>{c, x.c_row} : Add<T>{block, width});
        if (!whole) add_block(block, width, rows, columns, c, x.c_row);
      }
    }
  }
}

extern const WordTable word_table = {multiply_words<uint8_t>, multiply_words<uint16_t>, multiply_words<uint32_t>,
                                     multiply_words<uint64_t>};

}  // namespace ulpgrad::ULPGRAD_ISA
