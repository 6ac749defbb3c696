// Blocks of 64 queries, in the lanes of vectors, against blocks of 192 keys, with a running softmax: the largest score
// and the sums so far are corrected when a block brings a larger one. What the rungs differ in are the rows of a tile,
// and whether weights are made before scores have left the registers.
#pragma once

#include <cmath>
#include <cstring>

#include "attention.h"
#include "isa/attention_forward.h"

namespace ulpgrad::ULPGRAD_ISA {

using Floats = Numbers<float>;

template <int rows, class Finish>
static void multiply_in_tiles(const Multiply<Floats>& x, const Finish& finish) {
  constexpr int64_t wide = kTileVectors * kLanes<float>;
  int64_t j = 0;
  for (; j + wide <= x.n; j += wide) multiply_rows<Floats, kTileVectors, rows>(x, 0, j, finish);
  for (; j < x.n; j += kLanes<float>) multiply_rows<Floats, 1, rows>(x, 0, j, finish);
}

struct Running {
  const LadderHead& x;
  int64_t width = attention_width(x.value_size), columns = kLadderQueries;
  float* q = x.work;                                     // size x columns
  float* weights = q + x.size * kLadderQueries;          // keys x columns
  float* sums = weights + kLadderKeys * kLadderQueries;  // queries x width
  float* values = sums + kLadderQueries * width;         // keys x width
  float* shift = values + kLadderKeys * width;
  float* total = shift + kLadderQueries;
  float* fresh = total + kLadderQueries;  // of a block

  // Scores, in units of log2, become weights; what has been summed up moves to the new shift.
  void softmax(int64_t keys, int64_t key, int64_t first) const {
    for (int64_t i = 0; i < columns; ++i) {
      float largest = shift[i];
      for (int64_t j = 0; j < keys; ++j) {
        float& score = weights[j * columns + i];
        if (x.is_causal && key + j > first + i) score = -INFINITY;
        largest = score > largest ? score : largest;
      }
      const float change = largest == shift[i] ? 1 : exp2f(shift[i] - largest);
      for (int64_t e = 0; e < width; ++e) sums[i * width + e] *= change;
      total[i] *= change, shift[i] = largest;
    }
    for (int64_t i = 0; i < columns; i += kLanes<float>) {
      Vec<float> sum = load(total + i);
      for (int64_t j = 0; j < keys; ++j) {
        float* const to = weights + j * columns + i;
        store(to, exp2<float, true>(load(to), broadcast(1.0f), load(shift + i)));
        sum += load(to);
      }
      store(total + i, sum);
    }
  }

  // Weights for the shift that there is, at first 0; false if it proves too low or too high for them.
  bool at_once(const Multiply<Floats>& scores, bool first) const {
    for (int64_t i = 0; i < columns; ++i) shift[i] = first ? 0 : shift[i], fresh[i] = 0;
    multiply(scores, Weigh<Floats>{1, shift, fresh, weights, columns});
    bool good = true;
    for (int64_t i = 0; i < columns; ++i) good &= fresh[i] < 0x1p24f && total[i] + fresh[i] > 0x1p-24f;
    for (int64_t i = 0; good && i < columns; ++i) total[i] += fresh[i];
    for (int64_t i = 0; !good && first && i < columns; ++i) shift[i] = -INFINITY;
    return good;
  }

  template <int rows, bool in_registers>
  void block(int64_t first, int64_t queries) const {
    using Block = Blocks<float, Floats>;
    const AttentionRows v{x.v, x.value_size};
    Block::transpose({x.q, x.size}, first, queries, x.size, q, columns, nullptr);
    for (int64_t i = 0; i < x.size * columns; ++i) q[i] *= x.scale * 1.4426950408889634f;
    memset(sums, 0, columns * width * sizeof(float));
    for (int64_t i = 0; i < columns; ++i) shift[i] = -INFINITY, total[i] = 0;
    const int64_t seen = x.seen(first + queries - 1);
    const int64_t all_seen = x.is_causal ? least(first, x.keys) : x.keys, item = sizeof(float);
    int64_t keys;
    for (int64_t key = 0; key < seen; key += keys) {
      const bool by_all = key < all_seen;
      keys = least(kLadderKeys, (by_all ? all_seen : seen) - key);
      const Multiply<Floats> scores{keys, columns, x.size, x.k + key * x.size, x.size * item, item, q, columns};
      if (!(in_registers && by_all && at_once(scores, key == 0))) {
        multiply_in_tiles<rows>(scores, Scale<float>{1, weights, columns});
        softmax(keys, key, first);
      }
      const Panel<float> panel = Block::across(v, key, keys, x.value_size, width, values);
      multiply_in_tiles<rows>({queries, width, keys, weights, item, columns * item, panel.data, panel.row},
                              Add<float>{sums, width});
    }
    for (int64_t i = 0; i < queries; ++i)
      finish_row(sums + i * width, x.value_size, total[i], x.y + (first + i) * x.value_size);
    write_lse(shift, total, queries, x.lse + first);
  }

  template <int rows, bool in_registers>
  static void run(const LadderHead& head) {
    const Running running{head};
    for (int64_t first = 0; first < head.queries; first += kLadderQueries)
      running.block<rows, in_registers>(first, least(kLadderQueries, head.queries - first));
  }
};

}  // namespace ulpgrad::ULPGRAD_ISA
