// Backward computes the weights again from the kept lse, one block of keys after the other: dk and dv of a block stay
// in the cache until it is done, dq is added up in memory.
#pragma once

#include "attention_blocks.h"
#include "attention_dropout.h"
#include "attention_exp2.h"
#include "attention_mask.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kGradQ = kGradientQueries, kGradK = kGradientKeys;

// weights = 2^(factor * sums - the row's shift - the rest of it)
template <class Unit>
struct WeighAgain {
  using Real = typename Unit::Real;
  Real factor;
  const Real *shift, *rest;
  Real* weights;
  typename Unit::Item* items;  // the same as items
  int64_t columns;
  template <int rows, int vectors>
  ULPGRAD_FINISH void operator()(int64_t i0, int64_t j0, Vec<Real> (&sums)[rows][vectors]) const {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) {
        sums[i][j] =
            exp2<Real, Unit::exact>(sums[i][j], broadcast(factor), broadcast(shift[i0 + i]), broadcast(rest[i0 + i]));
        store(weights + (i0 + i) * columns + j0 + j * kLanes<Real>, sums[i][j]);
      }
    }
    if constexpr (Unit::count > 1) Unit::put(sums, items + i0 / Unit::count * columns + j0, columns);
  }
};

// What the scores want: weights * (sums - the row's mean) * scale. With dropout, the sums are gradients of kept weights
// only, and of these `factor` times.
template <class Unit, bool dropped>
struct Want {
  using Real = typename Unit::Real;
  Real scale;
  const Real* mean;
  const Real* weights;
  typename Unit::Item *wanted, *along;  // as items of neighbouring rows, and of neighbouring columns
  int64_t columns;
  const uint32_t* bits;
  Real factor;
  template <int rows, int vectors>
  ULPGRAD_FINISH void operator()(int64_t i0, int64_t j0, Vec<Real> (&sums)[rows][vectors]) const {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const Vec<Real> middle = broadcast(mean[i0 + i]);
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) {
        const Vec<Real> weight = load(weights + (i0 + i) * columns + j0 + j * kLanes<Real>);
        if constexpr (dropped) {
          const int64_t at = j0 + j * kLanes<Real>;
          sums[i][j] = kept<Real>(sums[i][j] * broadcast(factor), bits_at(bits + (i0 + i) * kBitsRow, at));
        }
        sums[i][j] = weight * (sums[i][j] - middle) * broadcast(scale);
      }
    }
    Unit::put(sums, wanted + i0 / Unit::count * columns + j0, columns);
    if constexpr (Unit::count > 1)
      Unit::put_along(sums, along + (i0 * columns + j0) / Unit::count, columns / Unit::count);
  }
};

template <class Stored, class Unit>
struct Backward {
  using Real = typename Unit::Real;
  using Item = typename Unit::Item;
  using Block = Blocks<Stored, Unit>;
  static constexpr double kLog2eLong = 1.4426950408889634;
  static constexpr Real kLog2e = Real(kLog2eLong);

  const AttentionGradient& x;
  const int64_t size, value_size, width, value_width, size_items, value_items;
  Item *k_columns, *v_columns, *k_panel, *q_panel, *g_panel, *items, *wanted, *wanted_along, *q_rows, *g_rows;
  Real *weights, *dk, *dv, *mean, *shift, *rest, *row;
  uint32_t* bits;  // of what dropout keeps

  Backward(const AttentionGradient& x, Pieces& pieces)
      : x(x),
        size(x.heads->size),
        value_size(x.heads->value_size),
        width(attention_width(size)),
        value_width(attention_width(value_size)),
        size_items(Block::items(size)),
        value_items(Block::items(value_size)) {
    k_columns = pieces.take<Item>(size_items * kGradK);
    v_columns = pieces.take<Item>(value_items * kGradK);
    q_rows = pieces.take<Item>(size_items * (kGradK > kGradQ ? kGradK : kGradQ));
    g_rows = pieces.take<Item>(value_items * (kGradK > kGradQ ? kGradK : kGradQ));
    k_panel = pieces.take<Item>(kGradK * width);
    q_panel = pieces.take<Item>(kGradQ * width);
    g_panel = pieces.take<Item>(kGradQ * value_width);
    weights = pieces.take<Real>(kGradQ * kGradK);
    items = Unit::count > 1 ? pieces.take<Item>(kGradQ * kGradK) : reinterpret_cast<Item*>(weights);
    wanted = pieces.take<Item>(kGradQ * kGradK);
    wanted_along = Unit::count > 1 ? pieces.take<Item>(kGradQ * kGradK / Unit::count) : wanted;
    dk = pieces.take<Real>(kGradK * width);
    dv = pieces.take<Real>(kGradK * value_width);
    row = pieces.take<Real>(2 * value_width);
    mean = pieces.take<Real>(x.count * x.heads->queries);
    shift = pieces.take<Real>(x.count * x.heads->queries);
    rest = pieces.take<Real>(x.count * x.heads->queries);
    bits = pieces.take<uint32_t>(x.heads->dropout ? kGradQ * kBitsRow : 0);
  }

  // For each query, the product of its rows of g and y, and the lse in units of log2.
  void prepare() const {
    const int64_t queries = x.heads->queries;
    for (int64_t h = 0; h < x.count; ++h) {
      for (int64_t i = 0; i < queries; ++i) {
        widen(row_of<Stored>(x.g[h], i), row, value_size);
        widen(row_of<Stored>(x.y[h], i), row + value_width, value_size);
        Real product = 0;
#pragma omp simd reduction(+ : product)
        for (int64_t e = 0; e < value_size; ++e) product += row[e] * row[value_width + e];
        const Real lse = static_cast<const Real*>(x.lse[h])[i];
        mean[h * queries + i] = product;
        const Real whole = lse * kLog2e;
        shift[h * queries + i] = lse == -__builtin_inff() ? Real(1e30) : whole;  // nothing seen: weights of 0
        rest[h * queries + i] = lse - lse == 0 ? static_cast<Real>(lse * kLog2eLong - whole) : 0;
      }
    }
  }

  // One block of queries of one head against the block of keys that `k_columns` and the like hold.
  ULPGRAD_TARGET void block(int64_t h, int64_t query, int64_t key, int64_t keys, int64_t columns,
                            const Panel<Item>& k) const {
    const AttentionHead& head = x.heads[h];
    const int64_t queries = least(kGradQ, head.queries - query), at = h * head.queries + query;
    const Real factor = static_cast<Real>(head.scale * 1.4426950408889634);
    const Items q = Block::along(head.q, query, queries, size, q_rows);
    const Items g = Block::along(x.g[h], query, queries, value_size, g_rows);
    const Multiply<Unit> scores{queries, columns, size_items, q.data, q.row, sizeof(Item), k_columns, columns};
    if (head.mask.data || (head.is_causal && key + keys > head.place + query + 1)) {
      multiply(scores, Scale<Real>{factor, weights, columns});
      apply_mask<Real>(head, query, key, {weights, queries, keys, columns, 1});
      for (int64_t i = 0; i < queries; i += Unit::count) {
        for (int64_t j = 0; j < columns; j += kLanes<Real>) {
          Vec<Real> tile[Unit::count][1] = {};
          for (int64_t c = 0; c < Unit::count && i + c < queries; ++c) {
            Real* const to = weights + (i + c) * columns + j;
            tile[c][0] = exp2<Real, Unit::exact>(load(to), broadcast(Real(1)), broadcast(shift[at + i + c]),
                                                 broadcast(rest[at + i + c]));
            store(to, tile[c][0]);
          }
          if constexpr (Unit::count > 1) Unit::put(tile, items + i / Unit::count * columns + j, columns);
        }
      }
    } else {
      multiply(scores, WeighAgain<Unit>{factor, shift + at, rest + at, weights, items, columns});
    }
    const Multiply<Unit> changes{queries, columns, value_items, g.data, g.row, sizeof(Item), v_columns, columns};
    const Real scale = static_cast<Real>(head.scale);
    if (head.dropout) {
      kept_rows(head, query, queries, key, keys, bits);
      multiply(changes, Want<Unit, true>{scale, mean + at, weights, wanted, wanted_along, columns, bits,
                                         static_cast<Real>(1 / head.dropout->share)});
      drop<Unit>(items, queries, columns, bits, kBitsRow);
    } else {
      multiply(changes, Want<Unit, false>{scale, mean + at, weights, wanted, wanted_along, columns, nullptr, 1});
    }
    const Panel<Item> qs = Block::across(head.q, query, queries, size, width, q_panel);
    const Panel<Item> gs = Block::across(x.g[h], query, queries, value_size, value_width, g_panel);
    const int64_t query_items = (queries + Unit::count - 1) / Unit::count;
    const int64_t key_items = (keys + Unit::count - 1) / Unit::count, item_row = columns * sizeof(Item);
    multiply<Unit>({keys, value_width, query_items, items, sizeof(Item), item_row, gs.data, gs.row},
                   Add<Real>{dv, value_width});
    multiply<Unit>({keys, width, query_items, wanted, sizeof(Item), item_row, qs.data, qs.row}, Add<Real>{dk, width});
    multiply<Unit>({queries, width, key_items, wanted_along, item_row / Unit::count, sizeof(Item), k.data, k.row},
                   Add<Real>{static_cast<Real*>(x.dq[h]) + query * width, width});
  }

  ULPGRAD_TARGET void run() const {
    prepare();
    const AttentionHead& first = x.heads[0];
    for (int64_t key = x.begin; key < x.end; key += kGradK) {
      const int64_t keys = least(kGradK, x.end - key), columns = round_up(keys, kLanes<Real>);
      Block::transpose(first.k, key, keys, size, k_columns, columns, q_rows);
      Block::transpose(first.v, key, keys, value_size, v_columns, columns, g_rows);
      const Panel<Item> k = Block::across(first.k, key, keys, size, width, k_panel);
      memset(dk, 0, keys * width * sizeof(Real));
      memset(dv, 0, keys * value_width * sizeof(Real));
      for (int64_t h = 0; h < x.count; ++h) {
        const int64_t before = first.is_causal ? key - first.place : 0;  // queries that see none of these keys
        const int64_t begin = before > 0 ? before / kGradQ * kGradQ : 0;
        for (int64_t query = begin; query < first.queries; query += kGradQ) block(h, query, key, keys, columns, k);
      }
      if (first.dropout) {  // dv's weights were dropped, and not divided by what is kept
        const Real factor = static_cast<Real>(1 / first.dropout->share);
        for (int64_t i = 0; i < keys * value_width; ++i) dv[i] *= factor;
      }
      for (int64_t j = 0; j < keys; ++j) {
        narrow(dk + j * width, static_cast<Stored*>(x.dk) + (key + j) * size, size);
        narrow(dv + j * value_width, static_cast<Stored*>(x.dv) + (key + j) * value_size, value_size);
      }
    }
  }
};

template <class Stored, class Unit>
static void backward(const AttentionGradient& x, void* memory) {
  Pieces pieces{static_cast<char*>(memory)};
  Backward<Stored, Unit>(x, pieces).run();
}

template <class Stored, class Unit>
static int64_t backward_memory(const AttentionGradient& x) {
  Pieces pieces{nullptr};
  Backward<Stored, Unit>(x, pieces);
  return pieces.used;
}

// dq = the sum of `parts` blocks of sums, each `part` values long, in order.
template <class Stored, typename Real>
static void add_parts(const void* sums, int64_t parts, int64_t part, int64_t rows, int64_t size, void* dq) {
  constexpr int64_t kValues = 256;
  const int64_t width = attention_width(size);
  Real whole[kValues];
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t begin = 0; begin < size; begin += kValues) {
      const int64_t n = least(kValues, size - begin);
      const Real* from = static_cast<const Real*>(sums) + i * width + begin;
      memcpy(whole, from, n * sizeof(Real));
      for (int64_t p = 1; p < parts; ++p) {
        from += part;
        for (int64_t j = 0; j < n; ++j) whole[j] += from[j];
      }
      narrow(whole, static_cast<Stored*>(dq) + i * size + begin, n);
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
