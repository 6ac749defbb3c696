// Positions of the k largest (or smallest) values along an axis. One pass keeps those that beat the k-th found so far;
// when their buffer is full it is cut to the best k, so the work is of order n for any k. Equal values rank by
// position.
#include <algorithm>
#include <memory>

#include "gather_lines.h"
#include "order.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 14;  // values, about 10 us: less does not pay for a thread
constexpr int64_t kBlock = 32;       // values that are passed over with one branch

struct Candidate {
  uint64_t key;
  int64_t position;
  bool operator<(const Candidate& other) const {  // better: it comes first
    return key != other.key ? key > other.key : position < other.position;
  }
};

template <bool largest, typename T>
Key<T> rank_of(T value) {
  return largest ? key_of(value) : static_cast<Key<T>>(~key_of(value));
}

// Sorts the best k of a line to the front of `kept`, which has room for `room` > k candidates (or the whole line).
template <bool largest, typename T>
void best(const T* x, int64_t n, int64_t k, Candidate* kept, int64_t room) {
  int64_t count = std::min(n, room), i = count;
  for (int64_t j = 0; j < count; ++j) kept[j] = {rank_of<largest>(x[j]), j};
  while (i < n) {
    std::nth_element(kept, kept + k - 1, kept + count);
    count = k;
    const uint64_t least = kept[k - 1].key;
    const T bound = x[kept[k - 1].position];
    while (i < n && count < room) {
      const int64_t end = std::min(n, i + kBlock);
      if (end - i == kBlock) {
        bool any = false;
        for (int64_t j = 0; j < kBlock; ++j) any |= largest ? !(x[i + j] <= bound) : !(x[i + j] >= bound);  // or NaN
        if (!any) {
          i = end;
          continue;
        }
      }
      for (; i < end && count < room; ++i) {  // later equal ones rank behind, so they are left out
        const uint64_t key = rank_of<largest>(x[i]);
        kept[count] = {key, i};
        count += key > least;
      }
    }
  }
  if (count > k) std::nth_element(kept, kept + k - 1, kept + count);
  std::sort(kept, kept + k);
}

template <bool largest, typename T>
void select(const T* x, const Lines& lines, int64_t k, int64_t* out) {
  const int64_t n = lines.size, inner = lines.inner, room = std::min(n, 2 * k + 32);
  parallel_for(lines.outer * inner, std::max<int64_t>(1, kGrain / n), [&](int64_t begin, int64_t end) {
    const std::unique_ptr<Candidate[]> kept(new Candidate[static_cast<size_t>(room)]);
    const std::unique_ptr<T[]> copy(lines.step == 1 ? nullptr : new T[static_cast<size_t>(n)]);
    for (int64_t line = begin; line < end; ++line) {
      const int64_t o = line / inner, j = line - o * inner;
      const T* from = x + lines.start(o, j);
      if (copy) {
        for (int64_t i = 0; i < n; ++i) copy[i] = from[i * lines.step];
        from = copy.get();
      }
      best<largest>(from, n, k, kept.get(), room);
      for (int64_t i = 0; i < k; ++i) out[(o * k + i) * inner + j] = kept[i].position;
    }
  });
}

py::array topk(const py::array& x, int64_t k, int64_t axis, bool largest) {
  const Lines lines = lines_of(x, axis, "x");
  if (k < 0 || k > lines.size)
    throw py::value_error("k: expected 0 to " + std::to_string(lines.size) + ", got " + std::to_string(k));
  py::array_t<int64_t> out = empty<int64_t>(shape_with(x, axis, k));
  int64_t* to = out.mutable_data();
  with_ordered(x, "x", [&](auto of) {
    const auto* from = static_cast<const decltype(of)*>(x.data());
    const py::gil_scoped_release free;
    if (k > 0) largest ? select<true>(from, lines, k, to) : select<false>(from, lines, k, to);
  });
  return out;
}

void bind(py::module_& m) {
  m.def("topk", &topk, py::arg("x"), py::arg("k"), py::arg("axis"), py::arg("largest"),
        "int64 positions of the k best values along an axis, the best first; NaN is the largest.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
