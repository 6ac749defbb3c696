// Forward works on transposed scores, keys x queries: the softmax runs down the columns, lane by lane, and rows of K
// are read as they lie.
//
// Weights are 2^(score - shift) for a shift that need not be the largest score, only near it: a block's weights are
// made from its scores while these are in registers, with the shift there is, at first 0; only if their sums say that
// it was too low or too high is the block done again, with a look at its scores first, as blocks with a mask always
// are.
//
// Weights that lose digits are always made with such a look, and with the largest score so far as the shift: those that
// count most are then 1 or a little less, where a digit is worth least (error of bfloat16 2.22e-3, else 2.35e-3).
#pragma once

#include "attention_blocks.h"
#include "attention_dropout.h"
#include "attention_exp2.h"
#include "attention_mask.h"
#include "vector_math.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kQ = kAttentionQueries, kK = kAttentionKeys, kFew = kAttentionFew;

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
      Vec<Real> sum{};
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
        sums[i][j] = exp2<Real, Unit::exact>(sums[i][j], broadcast(factor), low);
        sum += sums[i][j];
      }
      store(total + at, load(total + at) + sum);
    }
    Unit::put(sums, weights + i0 / Unit::count * columns + j0, columns);
  }
};

// Scores, factor * the sums, and the largest of each column.
template <typename T>
struct Largest {
  T factor;
  T *scores, *largest;
  int64_t columns;
  template <int rows, int vectors>
  ULPGRAD_FINISH void operator()(int64_t i0, int64_t j0, Vec<T> (&sums)[rows][vectors]) const {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      const int64_t at = j0 + j * kLanes<T>;
      Vec<T> most = load(largest + at);
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
        const Vec<T> score = sums[i][j] * broadcast(factor);
        most = score > most ? score : most;
        store(scores + (i0 + i) * columns + at, score);
      }
      store(largest + at, most);
    }
  }
};

// A row of y from the sums. Nothing seen: zeros. What a quotient by way of the reciprocal leaves is divided once more:
// where few keys are seen, a second rounding is a good part of the error of the whole.
template <class Stored, typename Real>
static void finish_row(Real* sums, int64_t size, Real total, Stored* y) {
  constexpr int64_t lanes = kLanes<Real>;
  const Vec<Real> whole = broadcast(total == 0 ? Real(1) : total), share = broadcast(Real(1)) / whole;
  for (int64_t e = 0; e < size; e += lanes) {
    const Vec<Real> sum = load(sums + e), quotient = sum * share, left = sum - quotient * whole;
    const Vec<Real> values = left == left ? quotient + left * share : quotient;  // not a number: beside infinity
    if constexpr (std::is_same_v<Stored, Real>) {
      store_some(y + e, values, least(lanes, size - e));
    } else {
      store(sums + e, values);
    }
  }
  if constexpr (!std::is_same_v<Stored, Real>) narrow(sums, y, size);
}

// The logarithms of sums of exponentials, from the sums for a shift. Nothing seen: minus infinity.
template <typename Real>
static void write_lse(const Real* shift, const Real* total, int64_t count, Real* lse) {
  constexpr int64_t lanes = kLanes<Real>;
  for (int64_t i = 0; i < count; i += lanes) {
    const int64_t some = least(lanes, count - i);
    const Vec<Real> sum = load_some(total + i, some), low = load_some(shift + i, some);
    const Vec<Real> logs = low * broadcast(Real(0.6931471805599453)) + vm::log(sum);
    store_some(lse + i, sum == Vec<Real>{} ? broadcast(Real(-__builtin_inff())) : logs, some);
  }
}

template <class Stored, class Unit>
struct Forward {
  using Real = typename Unit::Real;
  using Item = typename Unit::Item;
  using Block = Blocks<Stored, Unit>;
  static constexpr int64_t lanes = kLanes<Real>;
  static constexpr Real kInfinity = __builtin_inff();
  static constexpr Real kHigher = Unit::exact ? 8 : 0;     // how far scores may exceed the shift, in units of log2
  static constexpr Real kFar = 0x1p20;                     // scores whose own rounding is felt in their exponents
  static constexpr Real kLeast = 0x1p-24, kMost = 0x1p24;  // sums of weights made without a look

  const AttentionHead& head;
  int64_t first, queries, columns, width;
  Real factor;
  Item *q, *k, *v, *weights;
  Real *scores, *sums, *shift, *total, *block_total, *moved;
  uint32_t *bits, *turned;  // of what dropout keeps

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
    bits = pieces.take<uint32_t>(head.dropout ? kQ * kBitsRow : 0);
    turned = pieces.take<uint32_t>(head.dropout ? kK * (kQ / 32) : 0);
  }

  // Shifts are whole numbers, so that exponents can be taken from them without rounding, which only exact weights need.
  ULPGRAD_TARGET void make_whole(Real* values) const {
    if (!Unit::exact) return;
    for (int64_t i = 0; i < columns; ++i) values[i] = __builtin_rint(values[i]);
  }

  // Whether the weights that are made with the shift as it is are good.
  ULPGRAD_TARGET bool weigh_at_once(const Multiply<Unit>& product) const {
    bool good = true;
    for (int64_t i = 0; i < columns; ++i) good &= shift[i] - shift[i] == 0, block_total[i] = 0;
    if (!good) return false;
    multiply<Unit, Unit::exact>(product, Weigh<Unit>{factor, shift, block_total, weights, columns});
    for (int64_t i = 0; i < columns; ++i) good &= block_total[i] <= kMost && total[i] + block_total[i] >= kLeast;
    if (!good) return false;
    for (int64_t i = 0; i < columns; ++i) total[i] += block_total[i];
    return true;
  }

  // Weights in two steps: scores, then their exponentials after the shift has been moved to where they are. The factor
  // is applied inside the exponents, without a rounding of its own, unless a mask is added to scores, or they are so
  // large that what the shift lost of the largest might overflow.
  ULPGRAD_TARGET void weigh_with_care(const Multiply<Unit>& product, int64_t key, bool is_masked) const {
    const int64_t keys = product.m;
    for (int64_t i = 0; i < columns; ++i) moved[i] = -kInfinity;
    bool later = Unit::exact && !head.mask.data && factor > 0;
    const Real now = later ? Real(1) : factor;
    if (is_masked) {
      multiply<Unit, Unit::exact>(product, Scale<Real>{now, scores, columns});
      apply_mask<Real>(head, first, key, {scores, queries, keys, 1, columns});
      for (int64_t j = 0; j < keys; ++j) {
        const Real* const row = scores + j * columns;
        for (int64_t i = 0; i < columns; ++i) moved[i] = row[i] > moved[i] ? row[i] : moved[i];
      }
    } else {
      multiply<Unit, Unit::exact>(product, Largest<Real>{now, scores, moved, columns});
    }
    if (later) {
      for (int64_t i = 0; i < columns; ++i) {
        moved[i] *= factor;
        later &= !(moved[i] > kFar || (moved[i] < -kFar && moved[i] != -kInfinity));
      }
      for (int64_t i = 0; !later && i < keys * columns; ++i) scores[i] *= factor;
    }
    const Real rest = later ? factor : Real(1);
    bool grew = false;
    for (int64_t i = 0; i < columns; ++i) grew |= moved[i] > shift[i] + kHigher;
    if (grew) {
      make_whole(moved);
      for (int64_t i = 0; i < columns; ++i) {
        const Real before = shift[i];
        if (moved[i] > before + kHigher) shift[i] = moved[i];
        moved[i] = before == shift[i] ? Real(1) : before - shift[i];
      }
      for (int64_t i = 0; i < columns; i += lanes) {
        const Vec<Real> change = load(moved + i), one = broadcast(Real(1));
        store(moved + i, change == one ? one : exp2<Real, Unit::exact>(change, one, Vec<Real>{}));
      }
      for (int64_t i = 0; i < columns; ++i) total[i] *= moved[i];
      for (int64_t i = 0; i < queries; ++i) {
        for (int64_t e = 0; e < width; ++e) sums[i * width + e] *= moved[i];
      }
    }
    for (int64_t i = 0; i < columns; ++i) moved[i] = shift[i] == -kInfinity ? Real(0) : shift[i];
    for (int64_t i = 0; i < columns; i += lanes) weigh_scores<kTileRows>(0, keys, i, rest);
  }

  // Weights of a column of vectors of scores times a factor, `rows` at a time, and their sums.
  template <int rows>
  ULPGRAD_TARGET void weigh_scores(int64_t j, int64_t keys, int64_t i, Real by) const {
    const Vec<Real> low = load(moved + i), factors = broadcast(by);
    Vec<Real> sum = load(total + i);
    for (; j + rows <= keys; j += rows) {
      Vec<Real> tile[rows][1];
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        tile[r][0] = exp2<Real, Unit::exact>(load(scores + (j + r) * columns + i), factors, low);
        sum += tile[r][0];
      }
      Unit::put(tile, weights + j / Unit::count * columns + i, columns);
    }
    store(total + i, sum);
    if constexpr (rows > Unit::count) {
      if (j < keys) weigh_scores<rows - Unit::count>(j, keys, i, by);
    } else if constexpr (rows > 1) {
      if (j < keys) weigh_scores<1>(j, keys, i, by);
    }
  }

  ULPGRAD_TARGET void run(Stored* y, Real* lse) const {
    Block::transpose(head.q, first, queries, head.size, q, columns, k);
    memset(sums, 0, queries * width * sizeof(Real));
    for (int64_t i = 0; i < columns; ++i) shift[i] = total[i] = 0;
    const int64_t seen = head.seen(first + queries);
    int64_t by_all = head.mask.data ? 0 : head.seen(first);
    if (by_all < seen) by_all -= by_all % Unit::count;  // blocks begin with whole items
    int64_t keys;
    for (int64_t key = 0; key < seen; key += keys) {
      const bool plain = key < by_all;
      keys = least(kK, (plain ? by_all : seen) - key);
      const Items k_items = Block::along(head.k, key, keys, head.size, k);
      const Multiply<Unit> product{keys, columns, Block::items(head.size), k_items.data, k_items.row, sizeof(Item),
                                   q,    columns};
      if (!(plain && Unit::exact && weigh_at_once(product))) {
        for (int64_t i = 0; key == 0 && i < columns; ++i) shift[i] = -kInfinity;
        weigh_with_care(product, key, !plain);
      }
      if (head.dropout) {
        kept_rows(head, first, queries, key, keys, bits);
        turn_bits(bits, queries, keys, turned);
        drop<Unit>(weights, keys, columns, turned, kQ / 32);
      }
      const Panel<Item> values =
          head.values ? Panel<Item>{static_cast<const Item*>(head.values) + key / Unit::count * width, width}
                      : Block::across(head.v, key, keys, head.value_size, width, v);
      multiply<Unit>({queries, width, (keys + Unit::count - 1) / Unit::count, weights, sizeof(Item),
                      columns * static_cast<int64_t>(sizeof(Item)), values.data, values.row},
                     Add<Real>{sums, width});
    }
    const Real share = static_cast<Real>(head.dropout ? head.dropout->share : 1);  // what is kept is divided by it
    for (int64_t i = 0; i < queries; ++i)
      finish_row(sums + i * width, head.value_size, total[i] * share, y + i * head.value_size);
    write_lse(shift, total, queries, lse);
  }
};

// Few queries, as in decoding: each score is a product of two rows, and weights lie in rows of keys, so that no lane is
// left empty and K and V are read once.
template <class Stored, typename Real>
struct FewQueries {
  using Block = Blocks<Stored, Numbers<Real>>;
  static constexpr int64_t lanes = kLanes<Real>;
  static constexpr Real kInfinity = __builtin_inff();

  const AttentionHead& head;
  int64_t first, queries, width;
  Real *q, *k, *v, *weights, *sums;
  uint32_t* bits;

  FewQueries(const AttentionHead& head, int64_t first, Pieces& pieces)
      : head(head), first(first), queries(least(kQ, head.queries - first)), width(attention_width(head.value_size)) {
    q = pieces.take<Real>(kFew * head.size);
    k = pieces.take<Real>(kK * head.size);
    v = pieces.take<Real>(kK * width);
    weights = pieces.take<Real>(kFew * kK);
    sums = pieces.take<Real>(kFew * width);
    bits = pieces.take<uint32_t>(head.dropout ? kFew * kBitsRow : 0);
  }

  static Real dot(const Real* x, const Real* y, int64_t size) {
    Vec<Real> products{};
    int64_t p = 0;
    for (; p + lanes <= size; p += lanes) products += load(x + p) * load(y + p);
    Real all = sum<Real>(products);
    for (; p < size; ++p) all += x[p] * y[p];
    return all;
  }

  // Turns the scores of one query into weights, and moves what has been summed up to their shift.
  void weigh(Real* row, int64_t keys, Real* sums, Real& shift, Real& total) const {
    const int64_t padded = round_up(keys, lanes);
    for (int64_t j = keys; j < padded; ++j) row[j] = -kInfinity;
    Real largest = row[0];
    for (int64_t j = 1; j < keys; ++j) largest = row[j] > largest ? row[j] : largest;
    if (largest > shift) {
      const Real change = exp2<Real, true>(broadcast(shift - largest), broadcast(Real(1)), Vec<Real>{})[0];
      for (int64_t e = 0; e < width; ++e) sums[e] *= change;
      total *= change, shift = largest;
    }
    const Vec<Real> low = broadcast(shift == -kInfinity ? Real(0) : shift);
    Vec<Real> all{};
    for (int64_t j = 0; j < padded; j += lanes) {
      const Vec<Real> weight = exp2<Real, true>(load(row + j), broadcast(Real(1)), low);
      store(row + j, weight);
      all += weight;
    }
    total += sum<Real>(all);
  }

  void run(Stored* y, Real* lse) const {
    const Real factor = static_cast<Real>(head.scale * 1.4426950408889634);
    const Items q_items = Block::along(head.q, first, queries, head.size, q);
    Real shift[kFew], total[kFew] = {};
    for (int64_t i = 0; i < queries; ++i) shift[i] = -kInfinity;
    memset(sums, 0, queries * width * sizeof(Real));
    const int64_t seen = head.seen(first + queries);
    for (int64_t key = 0; key < seen; key += kK) {
      const int64_t keys = least(kK, seen - key);
      const Items k_items = Block::along(head.k, key, keys, head.size, k);
      for (int64_t j = 0; j < keys; ++j) {
        for (int64_t i = 0; i < queries; ++i)
          weights[i * kK + j] =
              dot(q_items.template row_of<Real>(i), k_items.template row_of<Real>(j), head.size) * factor;
      }
      apply_mask<Real>(head, first, key, {weights, queries, keys, kK, 1});
      for (int64_t i = 0; i < queries; ++i) weigh(weights + i * kK, keys, sums + i * width, shift[i], total[i]);
      if (head.dropout) {
        kept_rows(head, first, queries, key, keys, bits);
        drop<Numbers<Real>>(weights, queries, kK, bits, kBitsRow);
      }
      const Panel<Real> values = Block::across(head.v, key, keys, head.value_size, width, v);
      multiply<Numbers<Real>>({queries, width, keys, weights, kK * sizeof(Real), sizeof(Real), values.data, values.row},
                              Add<Real>{sums, width});
    }
    const Real share = static_cast<Real>(head.dropout ? head.dropout->share : 1);  // what is kept is divided by it
    for (int64_t i = 0; i < queries; ++i)
      finish_row(sums + i * width, head.value_size, total[i] * share, y + i * head.value_size);
    write_lse(shift, total, queries, lse);
  }
};

template <class Stored, class Unit>
static void forward(const AttentionHead& head, int64_t first, void* y, void* lse, void* memory) {
  using Real = typename Unit::Real;
  Pieces pieces{static_cast<char*>(memory)};
  if constexpr (Unit::count == 1) {
    if (least(kQ, head.queries - first) <= kFew)
      return FewQueries<Stored, Real>(head, first, pieces).run(static_cast<Stored*>(y), static_cast<Real*>(lse));
  }
  Forward<Stored, Unit>(head, first, pieces).run(static_cast<Stored*>(y), static_cast<Real*>(lse));
}

// How many bytes the values of a head take as the product wants them; 0 where that is as they lie.
template <class Stored, class Unit>
static int64_t values_memory(const AttentionHead& head) {
  const int64_t width = attention_width(head.value_size), count = Unit::count;
  if (Blocks<Stored, Unit>::lies_across(head.v, head.value_size, width)) return 0;
  return (head.keys + count - 1) / count * width * static_cast<int64_t>(sizeof(typename Unit::Item));
}

template <class Stored, class Unit>
static void pack_values(const AttentionHead& head, int64_t begin, int64_t end, void* to) {
  const int64_t width = attention_width(head.value_size);
  Blocks<Stored, Unit>::across(head.v, begin, end - begin, head.value_size, width,
                               static_cast<typename Unit::Item*>(to) + begin / Unit::count * width);
}

template <class Stored, class Unit>
static int64_t forward_memory(const AttentionHead& head) {
  Pieces many{nullptr}, few{nullptr};
  Forward<Stored, Unit>(head, 0, many);
  if constexpr (Unit::count == 1) FewQueries<Stored, typename Unit::Real>(head, 0, few);
  return many.used > few.used ? many.used : few.used;
}

}  // namespace ulpgrad::ULPGRAD_ISA
