// Recurrent layers over a sequence, in one direction, and their gradients through time.
//
// What the inputs contribute to the gates is given for all steps; each step multiplies the state before it with packed
// weights, and ends the gates of a tile while its sums are in the cache. Batch rows are independent, so threads share
// those out for the whole sequence; with few rows they share out the units at each step.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

enum class Cell : int { lstm, gru, tanh, relu };

constexpr int64_t gates_of(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }

template <typename T>
struct Recurrent {
  Cell cell;
  bool reverse;
  int64_t steps, n, h;
  const T* x;       // [steps][n][gates * h]
  const T* weight;  // [gates * h][h], or none where `given` stands for the product of the only step
  const T* given;   // [n][gates * h]
  const T* bias;    // [gates * h], or none
  const T *h0, *c0;
  T *y, *c;  // [steps][n][h]; c: of an LSTM
  T* saved;  // [steps][n][4 * h], what the gradient needs: an LSTM's gates; of a GRU r, z, n and the product's share of
             // n
  T* packed;  // memory for RecurrentTable::packed values
};

template <typename T>
struct RecurrentGradient {
  Cell cell;
  bool reverse;
  int64_t steps, n, h;
  const T* g;       // [steps][n][h]
  const T* weight;  // none: the gradient of the state before the only step is left to the caller
  const T *h0, *c0, *y, *c, *saved;
  T* dx;       // [steps][n][gates * h]
  T* own;      // the same of the recurrent terms, which differs for a GRU; else dx
  T *dh, *dc;  // [n][h]: of the first state. dc holds the last cell state's gradient at the start
  T* packed;
};

struct RecurrentTable {
  int64_t (*packed)(Cell cell, int64_t h, int64_t value_bytes);  // values, for either direction
  void (*f32)(const Recurrent<float>&);
  void (*f64)(const Recurrent<double>&);
};

struct RecurrentGradientTable {
  void (*f32)(const RecurrentGradient<float>&);
  void (*f64)(const RecurrentGradient<double>&);
};

ULPGRAD_TABLE(RecurrentTable, recurrent_table)
ULPGRAD_TABLE(RecurrentGradientTable, recurrent_gradient_table)

}  // namespace ulpgrad
