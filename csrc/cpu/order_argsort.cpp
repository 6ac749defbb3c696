// Positions that sort lines, stably: keys with their positions are sorted by their highest digits, the rest by
// comparing.
#include <algorithm>
#include <memory>

#include "gather_lines.h"
#include "order_radix.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 11;  // values, about 10 us: less does not pay for a thread
constexpr int64_t kFew = 24;         // values up to which each is inserted among those before it

// The key that sorts; NaN is last in either order.
template <bool descending, typename T>
Key<T> sorting_key(T value) {
  if (!descending) return key_of(value);
  if (std::is_floating_point_v<T> && value != value) return std::numeric_limits<Key<T>>::max();
  return static_cast<Key<T>>(~key_of(value));
}

// Sorts runs of items that agree in the bits from `shift` on.
template <typename Item, typename Before>
void sort_runs(Item* items, int64_t n, int shift, const Before& before) {
  for (int64_t begin = 0, end; begin < n; begin = end) {
    const auto key = shift < 64 ? uint64_t{items[begin].bits} >> shift : 0;
    for (end = begin + 1; end < n && (shift < 64 ? uint64_t{items[end].bits} >> shift : 0) == key;) ++end;
    if (end - begin > kFew) {
      std::sort(items + begin, items + end, before);
      continue;
    }
    for (int64_t i = begin + 1; i < end; ++i) {
      const Item one = items[i];
      int64_t j = i;
      for (; j > begin && before(one, items[j - 1]); --j) items[j] = items[j - 1];
      items[j] = one;
    }
  }
}

// Key and position in one integer; of a long key the lowest bits are left out. The highest digits part nearly all
// values of a line: what they leave together is compared.
template <typename Item, typename KeyAt>
void sort_positions(uint64_t* room, int64_t n, int range, int spread, int64_t* out, int64_t step, const KeyAt& key) {
  const int place = width(static_cast<uint64_t>(n));
  const int lost = std::max(0, range + place - 8 * static_cast<int>(sizeof(Item))), top = range + place - lost;
  const int digits = n <= kFew ? 0 : (place + spread) / kDigit, low = std::max(place, top - digits * kDigit);
  Item *items = reinterpret_cast<Item*>(room), *spare = reinterpret_cast<Item*>(room + n);
  for (int64_t i = 0; i < n; ++i)
    items[i].bits = static_cast<decltype(Item::bits)>(key(i) >> lost << place | static_cast<uint64_t>(i));
  if (digits && radix_sort(items, spare, n, low, top)) std::swap(items, spare);
  if (lost) {
    sort_runs(items, n, digits ? low : 64, [=](const Item& a, const Item& b) {
      const int64_t i = a.position(place), j = b.position(place);
      return key(i) != key(j) ? key(i) < key(j) : i < j;
    });
  } else if (low > place) {
    sort_runs(items, n, digits ? low : 64, [](const Item& a, const Item& b) { return a.bits < b.bits; });
  }
  for (int64_t i = 0; i < n; ++i) out[i * step] = items[i].position(place);
}

template <bool descending, typename T>
void sort_line(const T* x, int64_t n, int64_t step, int64_t* out, int64_t out_step, uint64_t* room) {
  uint64_t low = ~uint64_t{0}, high = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t key = sorting_key<descending>(x[i * step]);
    low = std::min(low, key);
    high = std::max(high, key);
  }
  const int range = width(high - low), spread = std::is_same_v<T, double> ? 22 : 14;  // bits, exponents among them
  const auto key = [=](int64_t i) { return sorting_key<descending>(x[i * step]) - low; };
  if (range + width(static_cast<uint64_t>(n)) <= 32)
    return sort_positions<Packed<uint32_t>>(room, n, range, spread, out, out_step, key);
  sort_positions<Packed<uint64_t>>(room, n, range, spread, out, out_step, key);
}

template <bool descending, typename T>
void sort_lines(const T* x, const Lines& lines, int64_t* out) {
  const int64_t n = lines.size, inner = lines.inner;
  parallel_for(lines.outer * inner, std::max<int64_t>(1, kGrain / n), [&](int64_t begin, int64_t end) {
    const std::unique_ptr<uint64_t[]> room(new uint64_t[static_cast<size_t>(2 * n)]);
    for (int64_t line = begin; line < end; ++line) {
      const int64_t o = line / inner, j = line - o * inner;
      sort_line<descending>(x + lines.start(o, j), n, lines.step, out + o * n * inner + j, inner, room.get());
    }
  });
}

py::array argsort(const py::array& x, int64_t axis, bool descending) {
  const Lines lines = lines_of(x, axis, "x");
  py::array_t<int64_t> out = empty<int64_t>(shape_with(x, axis, lines.size));
  int64_t* to = out.mutable_data();
  with_ordered(x, "x", [&](auto of) {
    const auto* from = static_cast<const decltype(of)*>(x.data());
    const py::gil_scoped_release free;
    if (out.size() > 0) descending ? sort_lines<true>(from, lines, to) : sort_lines<false>(from, lines, to);
  });
  return out;
}

void bind(py::module_& m) {
  m.def("argsort", &argsort, py::arg("x"), py::arg("axis"), py::arg("descending"),
        "int64 positions that sort x along an axis, equal values in their order, NaN last.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
