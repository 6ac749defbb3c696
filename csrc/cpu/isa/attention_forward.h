// Forward works on transposed scores, keys x queries: the softmax runs down the columns, lane by lane, and rows of K
// are read as they lie.
//
// Weights are 2^(score - shift) for a shift that need not be the largest score, only near it: a block's weights are
// made from its scores while these are in registers, with the shift there is; only if their sums say that it was too
// low is the block done again, with a look at its scores first. The same holds for blocks with a mask.
#pragma once

#include "attention_blocks.h"
#include "attention_exp2.h"
#include "vector_math.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kQ = kAttentionQueries, kK = kAttentionKeys;
constexpr int64_t kPeek = 2 * kTileRows;  // keys whose scores give the first shift

// weights = 2^(factor * sums - shift), and their sums.
template <class Unit>
struct Weigh {
  using Real = typename Unit::Real;
  Real factor;
  const Real* shift;
  Real* total;
  typename Unit::Item* weights;
  int64_t columns;
  template <int rows, int vectors>
  ULPGRAD_FINISH void operator()(int64_t i0, int64_t j0, Vec<Real> (&sums)[rows][vectors]) const {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      const int64_t at = j0 + j * kLanes<Real>;
      const Vec<Real> low = load(shift + at);
      Vec<Real> sum = load(total + at);
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
        sums[i][j] = exp2<Real>(sums[i][j] * broadcast(factor) - low);
        sum += sums[i][j];
      }
      store(total + at, sum);
    }
    Unit::put(sums, weights + i0 / Unit::count * columns + j0, columns);
  }
};

template <class Stored, class Unit>
struct Forward {
  using Real = typename Unit::Real;
  using Item = typename Unit::Item;
  using Block = Blocks<Stored, Unit>;
  static constexpr int64_t lanes = kLanes<Real>;
  static constexpr Real kInfinity = __builtin_inff();
  static constexpr Real kHigher = 8;    // by how much scores may exceed the shift before it moves, in units of log2
  static constexpr Real kMost = 65536;  // the largest sum of a block's weights that are made without a look

  const AttentionHead& head;
  int64_t first, queries, columns, width;
  Real factor;
  Item *q, *k, *v, *weights;
  Real *scores, *sums, *shift, *total, *block_total, *moved;

  Forward(const AttentionHead& head, int64_t first, Pieces& pieces)
      : head(head),
        first(first),
        queries(least(kQ, head.queries - first)),
        columns(round_up(queries, lanes)),
        width(attention_width(head.value_size)),
        factor(static_cast<Real>(head.scale * 1.4426950408889634)) {
    const int64_t size = Block::items(head.size);
    q = pieces.take<Item>(size * kQ);
    weights = pieces.take<Item>(kK * kQ);
    v = pieces.take<Item>(kK * width);
    k = pieces.take<Item>((kK > kQ ? kK : kQ) * size);
    sums = pieces.take<Real>(kQ * width);
    scores = pieces.take<Real>(kK * kQ);
    shift = pieces.take<Real>(kQ);
    total = pieces.take<Real>(kQ);
    block_total = pieces.take<Real>(kQ);
    moved = pieces.take<Real>(kQ);
  }

  // The shift from the scores of a few keys that every query sees.
  ULPGRAD_TARGET void peek(const Multiply<Unit>& product) const {
    const int64_t keys = least(kPeek, product.m);
    Multiply<Unit> few = product;
    few.m = keys;
    multiply(few, Scale<Real>{factor, scores, columns});
    for (int64_t i = 0; i < columns; ++i) shift[i] = scores[i];
    for (int64_t j = 1; j < keys; ++j) {
      const Real* const row = scores + j * columns;
      for (int64_t i = 0; i < columns; ++i) shift[i] = row[i] > shift[i] ? row[i] : shift[i];
    }
  }

  // Whether the weights that are made with the shift as it is are good.
  ULPGRAD_TARGET bool weigh_at_once(const Multiply<Unit>& product) const {
    bool good = true;
    for (int64_t i = 0; i < columns; ++i) good &= shift[i] - shift[i] == 0, block_total[i] = 0;
    if (!good) return false;
    multiply(product, Weigh<Unit>{factor, shift, block_total, weights, columns});
    for (int64_t i = 0; i < columns; ++i) good &= block_total[i] <= kMost;
    if (!good) return false;
    for (int64_t i = 0; i < columns; ++i) total[i] += block_total[i];
    return true;
  }

  // Weights in two steps: scores, then their exponentials after the shift has been moved to where they are.
  ULPGRAD_TARGET void weigh_with_care(const Multiply<Unit>& product, int64_t key) const {
    const int64_t keys = product.m;
    multiply(product, Scale<Real>{factor, scores, columns});
    apply_mask<Real, false>(head, first, queries, key, keys, scores, columns);
    for (int64_t i = 0; i < columns; ++i) moved[i] = -kInfinity;
    for (int64_t j = 0; j < keys; ++j) {
      const Real* const row = scores + j * columns;
      for (int64_t i = 0; i < columns; ++i) moved[i] = row[i] > moved[i] ? row[i] : moved[i];
    }
    bool grew = false;
    for (int64_t i = 0; i < columns; ++i) grew |= moved[i] > shift[i] + kHigher;
    if (grew) {
      for (int64_t i = 0; i < columns; ++i) {
        const Real before = shift[i];
        if (moved[i] > before + kHigher) shift[i] = moved[i];
        moved[i] = before == shift[i] ? Real(1) : before - shift[i];
      }
      for (int64_t i = 0; i < columns; i += lanes) {
        const Vec<Real> change = load(moved + i), one = broadcast(Real(1));
        store(moved + i, change == one ? one : exp2<Real>(change));
      }
      for (int64_t i = 0; i < columns; ++i) total[i] *= moved[i];
      for (int64_t i = 0; i < queries; ++i) {
        for (int64_t e = 0; e < width; ++e) sums[i * width + e] *= moved[i];
      }
    }
    for (int64_t i = 0; i < columns; ++i) moved[i] = shift[i] == -kInfinity ? Real(0) : shift[i];
    for (int64_t i = 0; i < columns; i += lanes) {
      const Vec<Real> low = load(moved + i);
      Vec<Real> sum = load(total + i);
      for (int64_t j = 0; j < keys; j += Unit::count) {
        Vec<Real> pair[Unit::count][1] = {};
        for (int64_t c = 0; c < Unit::count && j + c < keys; ++c) {
          pair[c][0] = exp2<Real>(load(scores + (j + c) * columns + i) - low);
          sum += pair[c][0];
        }
        Unit::put(pair, weights + j / Unit::count * columns + i, columns);
      }
      store(total + i, sum);
    }
  }

  ULPGRAD_TARGET void run(Stored* y, Real* lse) const {
    Block::transpose(head.q, first, queries, head.size, q, columns, k);
    memset(sums, 0, queries * width * sizeof(Real));
    for (int64_t i = 0; i < columns; ++i) shift[i] = -kInfinity, total[i] = 0;
    const int64_t seen = head.is_causal ? least(head.keys, first + queries) : head.keys;
    const int64_t by_all = head.mask.data ? 0 : (head.is_causal ? least(head.keys, first) : head.keys);
    int64_t keys;
    for (int64_t key = 0; key < seen; key += keys) {
      const bool plain = key < by_all;
      keys = least(kK, (plain ? by_all : seen) - key);
      const Items k_items = Block::along(head.k, key, keys, head.size, k);
      const Multiply<Unit> product{keys, columns, Block::items(head.size), k_items.data, k_items.row, sizeof(Item),
                                   q,    columns};
      if (plain && key == 0) peek(product);
      if (!(plain && weigh_at_once(product))) weigh_with_care(product, key);
      const Panel<Item> values = Block::across(head.v, key, keys, head.value_size, width, v);
      multiply<Unit>({queries, width, (keys + Unit::count - 1) / Unit::count, weights, sizeof(Item),
                      columns * static_cast<int64_t>(sizeof(Item)), values.data, values.row},
                     Add<Real>{sums, width});
    }
    for (int64_t i = 0; i < queries; ++i) {
      Real* const row = sums + i * width;
      const Real share = total[i] == 0 ? 0 : 1 / total[i];
      for (int64_t e = 0; e < width; ++e) row[e] *= share;
      narrow(row, y + i * head.value_size, head.value_size);
      lse[i] = (total[i] == 0 ? -kInfinity : shift[i] * Real(0.6931471805599453) + vm::log(total[i]));
    }
  }
};

template <class Stored, class Unit>
static void forward(const AttentionHead& head, int64_t first, void* y, void* lse, void* memory) {
  Pieces pieces{static_cast<char*>(memory)};
  Forward<Stored, Unit>(head, first, pieces).run(static_cast<Stored*>(y), static_cast<typename Unit::Real*>(lse));
}

template <class Stored, class Unit>
static int64_t forward_memory(const AttentionHead& head) {
  Pieces pieces{nullptr};
  Forward<Stored, Unit>(head, 0, pieces);
  return pieces.used;
}

}  // namespace ulpgrad::ULPGRAD_ISA
