// Distinct values by a radix sort of (key, position), from the lowest digit up: stable, so the first of each run of
// equal keys is the first in the array. Keys and positions that together fit 32 or 64 bits are sorted as one integer.
#include <algorithm>
#include <memory>

#include "order_radix.h"

namespace ulpgrad {
namespace {

// Runs of equal keys among item(i) for i in [0, n); those of the key `apart` (if any) count one by one.
template <typename Item, typename ItemAt>
py::tuple runs_of(int64_t n, int low, int high, int place, const uint64_t* apart, const ItemAt& item) {
  std::unique_ptr<Item[]> items, spare;
  py::array_t<int64_t> inverse = empty<int64_t>({n});
  int64_t* to = inverse.mutable_data();
  int64_t count = 0;
  {
    const py::gil_scoped_release free;
    items.reset(new Item[static_cast<size_t>(n)]);
    spare.reset(new Item[static_cast<size_t>(n)]);
    for (int64_t i = 0; i < n; ++i) items[i] = item(i);
    if (radix_sort(items.get(), spare.get(), n, low, high)) items.swap(spare);
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t key = items[i].key(place);
      if (i == 0 || key != items[i - 1].key(place) || (apart && key == *apart))
        spare[count++].bits = static_cast<decltype(Item::bits)>(i);  // where a run begins
      to[items[i].position(place)] = count - 1;
    }
  }
  py::array_t<int64_t> first = empty<int64_t>({count}), counts = empty<int64_t>({count});
  int64_t *firsts = first.mutable_data(), *lengths = counts.mutable_data();
  {
    const py::gil_scoped_release free;
    for (int64_t run = 0; run < count; ++run) {
      const int64_t begin = static_cast<int64_t>(spare[run].bits);
      firsts[run] = items[begin].position(place);
      lengths[run] = (run + 1 < count ? static_cast<int64_t>(spare[run + 1].bits) : n) - begin;
    }
  }
  return py::make_tuple(first, inverse, counts);
}

template <typename T>
py::tuple distinct(const T* x, int64_t n) {
  uint64_t low = n ? ~uint64_t{0} : 0, high = 0;
  {
    const py::gil_scoped_release free;
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t key = key_of(x[i]);
      low = std::min(low, key);
      high = std::max(high, key);
    }
  }
  // Each NaN is distinct, and all of them share the highest key.
  const uint64_t top = high - low;
  const uint64_t* apart = std::is_floating_point_v<T> && high == std::numeric_limits<Key<T>>::max() ? &top : nullptr;
  const int place = width(static_cast<uint64_t>(n)), range = width(top);
  const auto packed = [=](int64_t i) { return (key_of(x[i]) - low) << place | static_cast<uint64_t>(i); };
  if (place + range <= 32)
    return runs_of<Packed<uint32_t>>(n, place, place + range, place, apart,
                                     [=](int64_t i) { return Packed<uint32_t>{static_cast<uint32_t>(packed(i))}; });
  if (place + range <= 64)
    return runs_of<Packed<uint64_t>>(n, place, place + range, place, apart,
                                     [=](int64_t i) { return Packed<uint64_t>{packed(i)}; });
  return runs_of<Placed>(n, 0, range, 0, apart, [=](int64_t i) { return Placed{key_of(x[i]) - low, i}; });
}

py::tuple unique(const py::array& x) {
  expect_ndim(x, 1, "x");
  expect_contiguous(x, "x");
  if (!(x.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) throw py::value_error("x: not aligned");
  return with_ordered(x, "x", [&](auto of) { return distinct(static_cast<const decltype(of)*>(x.data()), x.size()); });
}

void bind(py::module_& m) {
  m.def("unique", &unique, py::arg("x"),
        "(first, inverse, counts) of the distinct values of x[n], in rising order; every NaN is distinct.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
