#include "reduction.h"

#include <limits>
#include <type_traits>

#include "rows_across.h"
#include "rows_math.h"

namespace ulpgrad::ULPGRAD_ISA {

// How two partial results join, on vectors and on single values alike; `start` changes nothing it is joined with.
template <typename T>
struct Sum {
  static constexpr T start = 0;
  static constexpr bool drops_nan = false;
  template <typename V>
  ULPGRAD_INLINE V join(V a, V b) {
    return a + b;
  }
};

template <typename T>
struct Prod {
  static constexpr T start = 1;
  static constexpr bool drops_nan = false;
  template <typename V>
  ULPGRAD_INLINE V join(V a, V b) {
    return a * b;
  }
};

// A NaN stays: it is not equal to itself, and no comparison with it is true. `larger` is one instruction, and leaves
// NaN out, for which its user looks.
template <typename T>
struct Max {
  static constexpr T start = -std::numeric_limits<T>::infinity();
  static constexpr bool drops_nan = true;
  template <typename V>
  ULPGRAD_INLINE V larger(V a, V b) {
    return b > a ? b : a;
  }
  template <typename V>
  ULPGRAD_INLINE V join(V a, V b) {
    return ((b > a) | (b != b)) ? b : a;
  }
};

template <typename T>
struct Min {
  static constexpr T start = std::numeric_limits<T>::infinity();
  static constexpr bool drops_nan = true;
  template <typename V>
  ULPGRAD_INLINE V larger(V a, V b) {
    return b < a ? b : a;
  }
  template <typename V>
  ULPGRAD_INLINE V join(V a, V b) {
    return ((b < a) | (b != b)) ? b : a;
  }
};

// What is reduced: the values, or their squared distances from a center.
struct Plain {
  template <typename V>
  ULPGRAD_INLINE V of(V x, V) {
    return x;
  }
};

struct Squares {
  template <typename V>
  ULPGRAD_INLINE V of(V x, V center) {
    return (x - center) * (x - center);
  }
};

constexpr int kVectors = 256 / kVectorBytes;  // accumulators: 256 bytes of lanes whatever the instruction set

// The lanes of a vector, its upper half joined to its lower one until one value is left.
template <typename T, typename Op, int bytes = kVectorBytes>
ULPGRAD_INLINE T across(const typename Bytes<T, bytes>::type& v) {
  if constexpr (bytes == sizeof(T)) {
    return v[0];
  } else {
    typename Bytes<T, bytes / 2>::type low, high;
    std::memcpy(&low, &v, bytes / 2);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + bytes / 2, bytes / 2);
    return across<T, Op, bytes / 2>(Op::join(low, high));
  }
}

template <typename S, typename Op, typename Value, typename T = Wide<S>>
static T reduce_block(const S* x, int64_t n, T center) {
  constexpr int lanes = kLanes<T>, width = kVectors * lanes;
  Vec<T> acc[kVectors];
  const Vec<T> c = broadcast(center);
  for (int k = 0; k < kVectors; ++k) acc[k] = broadcast(Op::start);
  int64_t i = 0;
  if constexpr (Op::drops_nan) {
    Vec<T> nan = acc[0];
    for (; i + width <= n; i += width) {
#pragma GCC unroll 16
      for (int k = 0; k < kVectors; ++k) {
        const Vec<T> v = load_wide(x + i + k * lanes);
        acc[k] = Op::larger(acc[k], v);
        nan = v == v ? nan : v;
      }
    }
    acc[0] = Op::join(acc[0], nan);
  } else {
    for (; i + width <= n; i += width) {
#pragma GCC unroll 16
      for (int k = 0; k < kVectors; ++k) acc[k] = Op::join(acc[k], Value::of(load_wide(x + i + k * lanes), c));
    }
  }
  for (int k = 0; k < kVectors && i < n; ++k, i += lanes) {
    const Partial<T> at{i, n - i < lanes ? n - i : lanes};
    acc[k] = Op::join(acc[k], at.keep(Value::of(at(x), c), Op::start));
  }
#pragma GCC unroll 16
  for (int half = kVectors / 2; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) acc[k] = Op::join(acc[k], acc[k + half]);
  return across<T, Op>(acc[0]);
}

// Joins results in pairs as they come, like the carries of a binary counter: no array of them is needed.
template <typename T, typename Op>
class Pairwise {
 public:
  void add(T value) {
    for (int64_t i = count_++; i & 1; i >>= 1) value = Op::join(pending_[--top_], value);
    pending_[top_++] = value;
  }
  T result() const {
    if (!top_) return Op::start;
    T value = pending_[top_ - 1];
    for (int i = top_ - 2; i >= 0; --i) value = Op::join(pending_[i], value);
    return value;
  }

 private:
  T pending_[64];
  int top_ = 0;
  int64_t count_ = 0;
};

template <typename S, typename Op, typename Value, typename T = Wide<S>>
static T reduce_run(const S* x, int64_t n, T center) {
  if (n <= kBlock) return reduce_block<S, Op, Value>(x, n, center);
  Pairwise<T, Op> parts;
  for (int64_t i = 0; i < n; i += kBlock)
    parts.add(reduce_block<S, Op, Value>(x + i, n - i < kBlock ? n - i : kBlock, center));
  return parts.result();
}

// A row of at most kVectors vectors, as reduce_block has it before it joins the lanes of the last one.
template <typename S, typename Op, typename Value, typename T = Wide<S>>
ULPGRAD_INLINE Vec<T> lanes_of(const S* x, int64_t n, T center) {
  constexpr int lanes = kLanes<T>;
  const Vec<T> c = broadcast(center), start = broadcast(Op::start);
  const auto value = [&](const auto& at) { return Op::join(start, at.keep(Value::of(at(x), c), Op::start)); };
  if (n <= lanes) return value(Partial<T>{0, n});
  Vec<T> acc[kVectors];
#pragma GCC unroll 16
  for (int k = 0; k < kVectors; ++k) {
    const int64_t i = k * lanes;
    acc[k] = i >= n ? start : value(Partial<T>{i, n - i < lanes ? n - i : lanes});
  }
#pragma GCC unroll 16
  for (int half = kVectors / 2; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) acc[k] = Op::join(acc[k], acc[k + half]);
  return acc[0];
}

// Runs of n values. Where they are short, the lanes of many are joined at once.
template <typename S, typename Op, typename Value, typename T = Wide<S>>
static void reduce_runs(const S* x, int64_t rows, int64_t n, const T* center, T* out) {
  constexpr int lanes = kLanes<T>;
  int64_t r = 0;
  for (; n <= kVectors * lanes && r + lanes <= rows; r += lanes) {
    Vec<T> some[lanes];
    for (int k = 0; k < lanes; ++k) some[k] = lanes_of<S, Op, Value>(x + (r + k) * n, n, center ? center[r + k] : T(0));
    store(out + r, across_rows<T, Op>(some));
  }
  for (; r < rows; ++r) out[r] = reduce_run<S, Op, Value>(x + r * n, n, center ? center[r] : T(0));
}

template <typename T, typename Op>
static T reduce_tree(const T* values, int64_t n) {
  Pairwise<T, Op> parts;
  for (int64_t i = 0; i < n; ++i) parts.add(values[i]);
  return parts.result();
}

// Columns of `full` vectors, and of `rest` columns beside them where there is a `tail`: joined as below, in registers.
template <typename S, typename Op, typename Value, int full, bool tail, typename T = Wide<S>>
static void reduce_few(const S* x, int64_t n, int64_t rest, int64_t stride, const T* center, T* out) {
  const auto each_vector = [rest](const auto& f) {
#pragma GCC unroll 4
    for (int v = 0; v < full; ++v) f(Whole<T>{v * kLanes<T>}, v);
    if constexpr (tail) f(Partial<T>{full * kLanes<T>, rest}, full);
  };
  Vec<T> acc[full + tail], m[full + tail];
  each_vector([&](const auto& at, int v) { acc[v] = broadcast(Op::start), m[v] = center ? at(center) : Vec<T>{}; });
  int64_t i = 0;
  for (; i + 4 <= n; i += 4, x += 4 * stride) {
    const S *a = x, *b = a + stride, *c = b + stride, *d = c + stride;
    each_vector([&](const auto& at, int v) {
      const Vec<T> ab = Op::join(Value::of(at(a), m[v]), Value::of(at(b), m[v]));
      const Vec<T> cd = Op::join(Value::of(at(c), m[v]), Value::of(at(d), m[v]));
      acc[v] = Op::join(acc[v], Op::join(ab, cd));
    });
  }
  for (; i < n; ++i, x += stride)
    each_vector([&](const auto& at, int v) { acc[v] = Op::join(acc[v], Value::of(at(x), m[v])); });
  each_vector([&](const auto& at, int v) { at.put(out, acc[v]); });
}

// Four rows are joined before the accumulators are touched: these lie in the cache where there are too many for
// registers.
template <typename S, typename Op, typename Value, typename T = Wide<S>>
static void reduce_rows(const S* x, int64_t n, int64_t width, int64_t stride, const T* center, T* out) {
  const int64_t full = width / kLanes<T>, rest = width % kLanes<T>;
  if (full == 0) return reduce_few<S, Op, Value, 0, true>(x, n, rest, stride, center, out);
  if (full == 1 && !rest) return reduce_few<S, Op, Value, 1, false>(x, n, rest, stride, center, out);
  if (full == 1) return reduce_few<S, Op, Value, 1, true>(x, n, rest, stride, center, out);
  if (full == 2 && !rest) return reduce_few<S, Op, Value, 2, false>(x, n, rest, stride, center, out);
  if (full == 2) return reduce_few<S, Op, Value, 2, true>(x, n, rest, stride, center, out);
  if (full == 4 && !rest) return reduce_few<S, Op, Value, 4, false>(x, n, rest, stride, center, out);
  for (int64_t j = 0; j < width; ++j) out[j] = Op::start;
  int64_t i = 0;
  for (; i + 4 <= n; i += 4, x += 4 * stride) {
    const S *a = x, *b = a + stride, *c = b + stride, *d = c + stride;
    each<T>(width, [&](const auto& at) {
      const Vec<T> m = center ? at(center) : Vec<T>{};
      const Vec<T> ab = Op::join(Value::of(at(a), m), Value::of(at(b), m));
      const Vec<T> cd = Op::join(Value::of(at(c), m), Value::of(at(d), m));
      at.put(out, Op::join(at(out), Op::join(ab, cd)));
    });
  }
  for (; i < n; ++i, x += stride) {
    each<T>(width,
            [&](const auto& at) { at.put(out, Op::join(at(out), Value::of(at(x), center ? at(center) : Vec<T>{}))); });
  }
}

// The row in which each column has its largest (or, of -x, smallest) value first; a NaN is larger than any number.
template <typename S, bool smallest, typename T = Wide<S>>
static void arg_rows(const S* x, int64_t n, int64_t width, int64_t stride, int64_t* out) {
  typedef typename Simd<T>::type V;
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Index;
  typedef decltype(V{} < V{}) Mask;  // Index in every lane
  each<T>(width, [&](const auto& at) {
    V best = at(x);
    Mask where = {};
    for (int64_t i = 1; i < n; ++i) {
      const V v = at(x + i * stride);
      const Mask better = ((smallest ? v < best : v > best) | (v != v)) & (best == best);
      best = better ? v : best;
      where = better ? Mask{} + static_cast<Index>(i) : where;
    }
    for (int64_t k = 0; k < kLanes<T> && at.j + k < width; ++k) out[at.j + k] = where[k];
  });
}

// In each lane, where n values of a row first hold `best`; `none` in lanes that do not.
template <typename S, typename Op, typename T = Wide<S>>
ULPGRAD_INLINE Places<T> places_of(const S* x, int64_t n, T best, Places<T> none) {
  Places<T> lane, where = none;
#pragma GCC unroll 16
  for (int l = 0; l < kLanes<T>; ++l) lane[l] = l;
  each<T>(n, [&](const auto& at) {
    const Vec<T> v = at.keep(at(x), Op::start);
    const Places<T> hit = (best == best ? v == best : v != v) & (where == none);
    where = hit ? lane + static_cast<decltype(lane[0] + 0)>(at.j) : where;
  });
  return where;
}

template <typename T>
constexpr auto kNowhere = std::numeric_limits<std::conditional_t<sizeof(T) == 4, int32_t, int64_t>>::max();

struct Either {
  template <typename V>
  ULPGRAD_INLINE V join(V a, V b) {
    return a | b;
  }
};

// Where n values of a row, `best` among them, first hold it: pieces without it are passed over.
template <typename S, typename Op, typename T = Wide<S>>
static int64_t first_of(const S* x, int64_t n, T best) {
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Index;
  constexpr int vectors = 16, piece = vectors * kLanes<T>;
  int64_t i = 0;
  for (; i + piece <= n; i += piece) {
    Places<T> hit = {};
#pragma GCC unroll 16
    for (int k = 0; k < vectors; ++k) {
      const Vec<T> v = load_wide(x + i + k * kLanes<T>);
      hit |= best == best ? v == best : v != v;
    }
    if (across<Index, Either>((Vec<Index>)hit)) break;
  }
  const Places<T> where = places_of<S, Op>(x + i, n - i < piece ? n - i : piece, best, Places<T>{} + kNowhere<T>);
  auto first = where[0];
#pragma GCC unroll 16
  for (int l = 1; l < kLanes<T>; ++l) first = where[l] < first ? where[l] : first;
  return i + first;
}

// The same along a run: the block whose best value is best of all, then the first place in it that holds that value.
template <typename S, typename Op, bool smallest, typename T = Wide<S>>
static int64_t arg_run(const S* x, int64_t n) {
  T best = reduce_block<S, Op, Plain>(x, n < kBlock ? n : kBlock, T(0));
  int64_t from = 0;
  for (int64_t i = kBlock; i < n && best == best; i += kBlock) {
    const T next = reduce_block<S, Op, Plain>(x + i, n - i < kBlock ? n - i : kBlock, T(0));
    if ((smallest ? next < best : next > best) || next != next) best = next, from = i;
  }
  return from + first_of<S, Op>(x + from, n - from < kBlock ? n - from : kBlock, best);
}

template <typename S, bool smallest, typename T = Wide<S>>
static void arg_runs_of(const S* x, int64_t rows, int64_t n, int64_t* out) {
  typedef std::conditional_t<smallest, Min<T>, Max<T>> Op;
  constexpr int lanes = kLanes<T>;
  int64_t r = 0;
  for (; n <= kVectors * lanes && r + lanes <= rows; r += lanes) {
    const S* from = x + r * n;
    arg_across<T, Op>(
        out + r, [&](int k) { return lanes_of<S, Op, Plain>(from + k * n, n, T(0)); },
        [&](int k, T best) { return places_of<S, Op>(from + k * n, n, best, Places<T>{} + kNowhere<T>); });
  }
  for (; r < rows; ++r) out[r] = arg_run<S, Op, smallest>(x + r * n, n);
}

// Running totals along n; columns stand side by side.
template <typename S, typename Op, typename T = Wide<S>>
static void cumulate(const S* x, S* y, int64_t n, int64_t width, int64_t stride) {
  T total[kTile];
  for (int64_t j = 0; j < width; ++j) total[j] = Op::start;
  for (int64_t i = 0; i < n; ++i, x += stride, y += stride) {
    each<T>(width, [&](const auto& at) {
      const Vec<T> next = Op::join(at(total), at(x));
      at.put(total, next);
      at.put(y, next);
    });
  }
}

// A single run is one chain of additions, so four rows of n values go side by side.
template <typename S, typename Op, typename T = Wide<S>>
static void cumulate_runs(const S* x, S* y, int64_t rows, int64_t n) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4, x += 4 * n, y += 4 * n) {
    T total[4] = {Op::start, Op::start, Op::start, Op::start};
    for (int64_t i = 0; i < n; ++i)
      for (int k = 0; k < 4; ++k) y[k * n + i] = narrow<S>(total[k] = Op::join(total[k], widen(x[k * n + i])));
  }
  for (; r < rows; ++r, x += n, y += n) {
    T total = Op::start;
    for (int64_t i = 0; i < n; ++i) y[i] = narrow<S>(total = Op::join(total, widen(x[i])));
  }
}

template <typename T, typename Body>
static auto with_kind(Reduce kind, const Body& body) {
  switch (kind) {
    case Reduce::prod:
      return body(Prod<T>{}, Plain{});
    case Reduce::max:
      return body(Max<T>{}, Plain{});
    case Reduce::min:
      return body(Min<T>{}, Plain{});
    case Reduce::squares:
      return body(Sum<T>{}, Squares{});
    default:
      return body(Sum<T>{}, Plain{});
  }
}

template <typename S, typename T = Wide<S>>
static T block(Reduce kind, const S* x, int64_t n, T center) {
  return with_kind<T>(
      kind, [&](auto op, auto value) { return reduce_block<S, decltype(op), decltype(value)>(x, n, center); });
}

template <typename S, typename T = Wide<S>>
static void runs(Reduce kind, const S* x, int64_t rows, int64_t n, const T* center, T* out) {
  with_kind<T>(kind, [&](auto op, auto value) {
    reduce_runs<S, decltype(op), decltype(value)>(x, rows, n, center, out);
    return 0;
  });
}

template <typename S, typename T = Wide<S>>
static void rows(Reduce kind, const S* x, int64_t n, int64_t width, int64_t stride, const T* center, T* out) {
  with_kind<T>(kind, [&](auto op, auto value) {
    reduce_rows<S, decltype(op), decltype(value)>(x, n, width, stride, center, out);
    return 0;
  });
}

template <typename T>
static T tree(Reduce kind, const T* parts, int64_t n) {
  return with_kind<T>(kind, [&](auto op, auto) { return reduce_tree<T, decltype(op)>(parts, n); });
}

template <typename S>
static void arg(Reduce kind, const S* x, int64_t n, int64_t width, int64_t stride, int64_t* out) {
  kind == Reduce::min ? arg_rows<S, true>(x, n, width, stride, out) : arg_rows<S, false>(x, n, width, stride, out);
}

template <typename S>
static void arg_runs(Reduce kind, const S* x, int64_t rows, int64_t n, int64_t* out) {
  if (n == 1) {
    for (int64_t r = 0; r < rows; ++r) out[r] = 0;
    return;
  }
  kind == Reduce::min ? arg_runs_of<S, true>(x, rows, n, out) : arg_runs_of<S, false>(x, rows, n, out);
}

template <typename S, typename T = Wide<S>>
static void running(Reduce kind, const S* x, S* y, int64_t n, int64_t width, int64_t stride) {
  kind == Reduce::prod ? cumulate<S, Prod<T>>(x, y, n, width, stride) : cumulate<S, Sum<T>>(x, y, n, width, stride);
}

template <typename S, typename T = Wide<S>>
static void running_runs(Reduce kind, const S* x, S* y, int64_t rows, int64_t n) {
  kind == Reduce::prod ? cumulate_runs<S, Prod<T>>(x, y, rows, n) : cumulate_runs<S, Sum<T>>(x, y, rows, n);
}

template <typename S>
constexpr ReduceFunctions<S> kFunctions = {block<S>, runs<S>,     rows<S>,    tree<Wide<S>>,
                                           arg<S>,   arg_runs<S>, running<S>, running_runs<S>};

extern const ReduceTable reduce_table = {kFunctions<float>, kFunctions<double>, kFunctions<Bfloat16>,
                                         kFunctions<Float16>};

}  // namespace ulpgrad::ULPGRAD_ISA
