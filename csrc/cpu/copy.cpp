// Values copied between two layouts of one shape. Axes are sorted by the result's strides and merged where both sides
// allow it; then rows are copied whole, or, where the two sides run fastest along different axes, in square tiles, so
// that each cache line is touched once. Threads share out rows and tiles.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 17;  // bytes, about 20 us: less does not pay for a thread
constexpr int64_t kPiece = 1 << 14;  // bytes: longer rows are split

struct Axis {
  int64_t size, from, to;  // strides in bytes; `to` is positive
};

struct Plan {
  const char* from;
  char* to;
  std::vector<Axis> axes;  // the last one is the innermost of the result
};

// The bytes that an array reaches: [first, last).
struct Extent {
  const char *first, *last;
};

Extent extent(const py::array& a) {
  const char* first = static_cast<const char*>(a.data());
  const char* last = first + a.itemsize();
  for (int64_t i = 0; i < a.ndim(); ++i) {
    const int64_t reach = (a.shape(i) - 1) * a.strides(i);
    (reach < 0 ? first : last) += reach;
  }
  return {first, last};
}

// Axes with a positive stride in the result, in falling order of it, without those of size 1, merged where that is the
// same walk. ValueError if two positions of the result could share memory.
Plan plan(const py::array& x, py::array& out) {
  Plan p{static_cast<const char*>(x.data()), static_cast<char*>(out.mutable_data()), {}};
  for (int64_t i = 0; i < x.ndim(); ++i) {
    Axis a{x.shape(i), x.strides(i), out.strides(i)};
    if (a.size == 1) continue;
    if (a.to < 0) {
      p.from += (a.size - 1) * a.from;
      p.to += (a.size - 1) * a.to;
      a.from = -a.from;
      a.to = -a.to;
    }
    p.axes.push_back(a);
  }
  std::stable_sort(p.axes.begin(), p.axes.end(), [](const Axis& a, const Axis& b) { return a.to > b.to; });
  int64_t reach = out.itemsize();
  for (size_t i = p.axes.size(); i-- > 0;) {
    if (p.axes[i].to < reach) throw py::value_error("out: its positions share memory");
    reach += (p.axes[i].size - 1) * p.axes[i].to;
  }
  std::vector<Axis> merged;
  for (const Axis& a : p.axes) {
    if (!merged.empty() && merged.back().to == a.size * a.to && merged.back().from == a.size * a.from)
      merged.back() = {merged.back().size * a.size, a.from, a.to};
    else
      merged.push_back(a);
  }
  if (merged.empty()) merged.push_back({1, out.itemsize(), out.itemsize()});
  p.axes = std::move(merged);
  return p;
}

// Steps through all positions of some axes in row-major order, from the n-th one.
class Walk {
 public:
  Walk(const std::vector<Axis>& axes, int64_t n, const char* from, char* to)
      : from(from), to(to), axes_(axes), at_(axes.size()) {
    for (size_t i = axes.size(); i-- > 0; n /= axes[i].size) {
      at_[i] = n % axes[i].size;
      this->from += at_[i] * axes[i].from;
      this->to += at_[i] * axes[i].to;
    }
  }

  void next() {
    for (size_t i = axes_.size(); i-- > 0;) {
      from += axes_[i].from;
      to += axes_[i].to;
      if (++at_[i] < axes_[i].size) return;
      at_[i] = 0;
      from -= axes_[i].size * axes_[i].from;
      to -= axes_[i].size * axes_[i].to;
    }
  }

  const char* from;
  char* to;

 private:
  const std::vector<Axis>& axes_;
  std::vector<int64_t> at_;
};

int64_t positions(const std::vector<Axis>& axes) {
  int64_t n = 1;
  for (const Axis& a : axes) n *= a.size;
  return n;
}

template <typename T>
inline T load(const char* from) {
  return *reinterpret_cast<const T*>(from);
}

template <typename T>
inline void store(char* to, T value) {
  *reinterpret_cast<T*>(to) = value;
}

template <typename T>
void copy_row(const char* from, int64_t from_step, char* to, int64_t to_step, int64_t n) {
  constexpr int64_t size = sizeof(T);
  if (to_step == size && from_step == size) {
    std::memcpy(to, from, static_cast<size_t>(n * size));
  } else if (to_step == size && from_step == 0) {
    std::fill_n(reinterpret_cast<T*>(to), n, load<T>(from));
  } else if (to_step == size && from_step == -size) {
    const T* source = reinterpret_cast<const T*>(from);
    T* target = reinterpret_cast<T*>(to);
    for (int64_t i = 0; i < n; ++i) target[i] = source[-i];
  } else {
    for (int64_t i = 0; i < n; ++i) store(to + i * to_step, load<T>(from + i * from_step));
  }
}

template <typename T>
void copy_rows(Plan p) {
  const Axis row = p.axes.back();
  p.axes.pop_back();
  const int64_t piece = std::min<int64_t>(row.size, kPiece / sizeof(T)), pieces = (row.size + piece - 1) / piece;
  const int64_t grain = std::max<int64_t>(1, kGrain / (piece * static_cast<int64_t>(sizeof(T))));
  parallel_for(positions(p.axes) * pieces, grain, [&](int64_t begin, int64_t end) {
    Walk walk(p.axes, begin / pieces, p.from, p.to);
    int64_t part = begin % pieces;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = part * piece;
      copy_row<T>(walk.from + first * row.from, row.from, walk.to + first * row.to, row.to,
                  std::min(piece, row.size - first));
      if (++part == pieces) {
        part = 0;
        walk.next();
      }
    }
  });
}

// Side of a tile: about a cache line of values.
template <typename T>
constexpr int64_t kSide = std::clamp<int64_t>(64 / sizeof(T), 16, 32);

// A whole tile, whose lines are contiguous on each side, by way of a block that stays in the first cache.
template <typename T>
void transpose_tile(const char* from, int64_t from_step, char* to, int64_t to_step) {
  constexpr int64_t side = kSide<T>;
  T block[side][side];
  for (int64_t i = 0; i < side; ++i) std::memcpy(block[i], from + i * from_step, sizeof block[i]);
  for (int64_t j = 0; j < side; ++j) {
    T line[side];
    for (int64_t i = 0; i < side; ++i) line[i] = block[i][j];
    std::memcpy(to + j * to_step, line, sizeof line);
  }
}

// `fast` is the axis along which x runs fastest, the last one that of the result.
template <typename T>
void copy_tiles(Plan p, size_t fast) {
  constexpr int64_t side = kSide<T>, size = sizeof(T), piece = 32 * side;
  const Axis row = p.axes.back(), column = p.axes[fast];
  p.axes.pop_back();
  p.axes.erase(p.axes.begin() + static_cast<std::ptrdiff_t>(fast));
  const bool whole = row.to == size && column.from == size;
  const int64_t pieces = (row.size + piece - 1) / piece, panels = (column.size + side - 1) / side;
  const int64_t bytes = std::min(row.size, piece) * std::min(column.size, side) * size;
  parallel_for(positions(p.axes) * panels * pieces, std::max<int64_t>(1, kGrain / bytes),
               [&](int64_t begin, int64_t end) {
                 Walk walk(p.axes, begin / (panels * pieces), p.from, p.to);
                 int64_t part = begin % (panels * pieces);
                 for (int64_t unit = begin; unit < end; ++unit) {
                   const int64_t c = part / pieces * side, columns = std::min(side, column.size - c);
                   const int64_t first = part % pieces * piece, last = std::min(first + piece, row.size);
                   for (int64_t r = first; r < last; r += side) {
                     const char* from = walk.from + r * row.from + c * column.from;
                     char* to = walk.to + r * row.to + c * column.to;
                     const int64_t rows = std::min(side, last - r);
                     if (whole && rows == side && columns == side) {
                       transpose_tile<T>(from, row.from, to, column.to);
                       continue;
                     }
                     for (int64_t j = 0; j < columns; ++j)
                       copy_row<T>(from + j * column.from, row.from, to + j * column.to, row.to, rows);
                   }
                   if (++part == panels * pieces) {
                     part = 0;
                     walk.next();
                   }
                 }
               });
}

template <typename T>
void copy(Plan p) {
  const size_t last = p.axes.size() - 1;
  size_t fast = last;
  for (size_t i = 0; i < last; ++i) {
    const int64_t step = std::abs(p.axes[i].from);
    if (p.axes[i].size >= 4 && step != 0 && step < std::abs(p.axes[fast].from)) fast = i;
  }
  if (fast == last || p.axes[last].size < 4)
    copy_rows<T>(std::move(p));
  else
    copy_tiles<T>(std::move(p), fast);
}

void copy_into(py::array& out, const py::array& x) {
  if (!x.dtype().equal(out.dtype())) throw py::type_error("out: expected the type of x");
  if (std::strchr("biuf", x.dtype().kind()) == nullptr) throw py::type_error("x: expected plain numbers");
  if (x.ndim() != out.ndim() || !std::equal(x.shape(), x.shape() + x.ndim(), out.shape()))
    throw py::value_error("out: expected shape " + shape_text(x) + ", got " + shape_text(out));
  if (!(x.flags() & out.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw py::value_error("x, out: not aligned");
  if (!out.writeable()) throw py::value_error("out: read-only");
  const int64_t size = x.itemsize();
  if (size != 1 && size != 2 && size != 4 && size != 8)
    throw py::type_error("x: expected values of 1, 2, 4 or 8 bytes");
  if (x.size() == 0) return;
  const Extent source = extent(x), target = extent(out);
  if (source.first < target.last && target.first < source.last) throw py::value_error("out: shares memory with x");
  Plan p = plan(x, out);
  const py::gil_scoped_release free;
  switch (size) {
    case 1:
      return copy<uint8_t>(std::move(p));
    case 2:
      return copy<uint16_t>(std::move(p));
    case 4:
      return copy<uint32_t>(std::move(p));
    default:
      return copy<uint64_t>(std::move(p));
  }
}

void bind(py::module_& m) {
  m.def("copy_into", &copy_into, py::arg("out"), py::arg("x"),
        "Writes x's values to `out`, of its shape and type, in any layout of the two that does not overlap.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
