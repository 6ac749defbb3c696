// Small matrix products on operands that are in the cache already: tiles of 6 x (up to 4 vectors) of sums in registers,
// which a `finish` takes over while they are there.
#pragma once

#ifdef __SSE2__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC's own header, which names undefined registers so
#endif

#include "simd.h"

#ifndef ULPGRAD_TARGET
#define ULPGRAD_TARGET
#endif
#define ULPGRAD_TILE static inline __attribute__((always_inline)) ULPGRAD_TARGET
#define ULPGRAD_FINISH inline __attribute__((always_inline)) ULPGRAD_TARGET

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kTileRows = 6;
constexpr int kTileVectors = kManyRegisters ? 4 : 2;

// What is multiplied: items of `count` numbers each. This one: numbers as they are.
template <typename T>
struct Numbers {
  using Real = T;
  using Item = T;
  static constexpr int64_t count = 1;
  static constexpr bool exact = true;  // whether weights keep all their digits

  static ULPGRAD_FINISH Vec<T> multiply_add(Item a, Vec<Item> b, Vec<T> sum) { return sum + broadcast(a) * b; }

  // A tile of numbers as rows of items.
  template <int rows, int vectors>
  static ULPGRAD_FINISH void put(const Vec<T> (&tile)[rows][vectors], Item* to, int64_t row) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) store(to + i * row + j * kLanes<T>, tile[i][j]);
    }
  }
};

// C = A B by tiles. a: items, the rows `a_row` bytes apart, columns `a_column`; rows of B hold n items, n a multiple of
// the vector.
template <class Unit>
struct Multiply {
  int64_t m, n, k;
  const void* a;
  int64_t a_row, a_column;
  const typename Unit::Item* b;
  int64_t b_row;
};

// sums += items p of the rows times rows p of B, for begin <= p < end; p counts bytes of a row of A.
template <class Unit, int rows, int vectors>
ULPGRAD_TILE void add_products(const Multiply<Unit>& x, const char* const (&a)[rows], const typename Unit::Item*& b,
                               int64_t begin, int64_t end, Vec<typename Unit::Real> (&sums)[rows][vectors]) {
  using Item = typename Unit::Item;
  for (int64_t p = begin; p < end; p += x.a_column, b += x.b_row) {
    Vec<Item> row[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) row[j] = load(b + j * kLanes<Item>);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      Item value;
      __builtin_memcpy(&value, a[i] + p, sizeof value);
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sums[i][j] = Unit::multiply_add(value, row[j], sums[i][j]);
    }
  }
}

// By value, here and in multiply_rows: what a reference leads to would be read again after every store. `halved`: the
// sum of each half of k by itself, then both; the error of a chain grows with its length.
template <class Unit, int rows, int vectors, bool halved, class Finish>
ULPGRAD_TILE void multiply_tile(const Multiply<Unit> x, int64_t i0, int64_t j0, const Finish finish) {
  using Real = typename Unit::Real;
  constexpr int64_t lanes = kLanes<Real>;
  const char* a[rows];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) a[i] = static_cast<const char*>(x.a) + (i0 + i) * x.a_row;
  const typename Unit::Item* b = x.b + j0;
  const int64_t middle = halved ? x.k / 2 * x.a_column : 0;
  alignas(kVectorBytes) Real first[halved ? rows * vectors * lanes : 1];
  if constexpr (halved) {
    Vec<Real> sums[rows][vectors] = {};
    add_products<Unit>(x, a, b, 0, middle, sums);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) store(first + (i * vectors + j) * lanes, sums[i][j]);
    }
  }
  Vec<Real> sums[rows][vectors] = {};
  add_products<Unit>(x, a, b, middle, x.k * x.a_column, sums);
  if constexpr (halved) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sums[i][j] += load(first + (i * vectors + j) * lanes);
    }
  }
  finish(i0, j0, sums);
}

template <class Unit, int vectors, int rows, bool halved = false, class Finish>
static ULPGRAD_TARGET void multiply_rows(const Multiply<Unit> x, int64_t i, int64_t j, const Finish finish) {
  for (; i + rows <= x.m; i += rows) multiply_tile<Unit, rows, vectors, halved>(x, i, j, finish);
  if constexpr (rows > 1) {
    if (i < x.m) multiply_rows<Unit, vectors, rows - 1, halved>(x, i, j, finish);
  }
}

template <class Unit, bool halved = false, class Finish>
static ULPGRAD_TARGET void multiply(const Multiply<Unit>& x, const Finish& finish) {
  constexpr int64_t lanes = kLanes<typename Unit::Real>, wide = kTileVectors * lanes;
  int64_t j = 0;
  for (; j + wide <= x.n; j += wide) multiply_rows<Unit, kTileVectors, kTileRows, halved>(x, 0, j, finish);
  for (; j < x.n; j += lanes) multiply_rows<Unit, 1, kTileRows, halved>(x, 0, j, finish);
}

// c += the sums
template <typename T>
struct Add {
  T* c;
  int64_t row;
  template <int rows, int vectors>
  ULPGRAD_FINISH void operator()(int64_t i0, int64_t j0, Vec<T> (&sums)[rows][vectors]) const {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) {
        T* const to = c + (i0 + i) * row + j0 + j * kLanes<T>;
        store(to, load(to) + sums[i][j]);
      }
    }
  }
};

// c = factor * the sums
template <typename T>
struct Scale {
  T factor;
  T* c;
  int64_t row;
  template <int rows, int vectors>
  ULPGRAD_FINISH void operator()(int64_t i0, int64_t j0, Vec<T> (&sums)[rows][vectors]) const {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) store(c + (i0 + i) * row + j0 + j * kLanes<T>, sums[i][j] * broadcast(factor));
    }
  }
};

}  // namespace ulpgrad::ULPGRAD_ISA
