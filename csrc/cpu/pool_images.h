// What poolings of images share: results that lie as their images do, planes or pixels of them, 16-bit floats widened.
#pragma once

#include <algorithm>

#include "bind_floats.h"
#include "conv_geometry.h"
#include "pool_pixels.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {

// How many planes are worth a thread, of so many values looked at.
inline int64_t planes_for_a_thread(int64_t values) {
  return std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(1, values));
}

template <typename T>
PixelImages<T> pixels_of(const py::array& a) {
  const Images<const T> seen = images_of<T>(a);
  return {seen.data, a.shape(0), a.shape(1), seen.image, seen.row, seen.column};
}

// Whether an array's channels lie side by side, as empty_images() has it.
inline bool lies_last(const py::array& a) {
  return a.strides(1) == a.itemsize() && a.shape(1) > 1 && !(a.flags() & py::array::c_style);
}

// Memory order [n, c, h, w], or [n, h, w, c] with `last`; copied if it does not lie so.
inline py::array laid(const py::array& a, bool last) {
  const auto contiguous = [](const py::object& x) {
    const py::array found = py::array::ensure(x, py::array::c_style);
    if (!found) throw std::bad_alloc();
    return found;
  };
  if (!last) return contiguous(a);
  return py::array(contiguous(a.attr("transpose")(0, 2, 3, 1)).attr("transpose")(0, 3, 1, 2));
}

// Calls body(values, room for results) with a plane's values in float32 where they are 16-bit floats, and rounds what
// it puts there.
template <typename S, typename Body>
void widened(const S* from, int64_t n, S* to, int64_t m, Isa isa, const Body& body) {
  if constexpr (std::is_same_v<S, Wide<S>>) {
    body(from, to);
  } else {
    const CastTable& casts = table<CastTable>(isa);
    float* const x = static_cast<float*>(scratch(Slot::caller, static_cast<size_t>(n + m) * sizeof(float)));
    (std::is_same_v<S, Bfloat16> ? casts.b_s : casts.h_s)(from, x, n);
    body(x, x + n);
    (std::is_same_v<S, Bfloat16> ? casts.s_b : casts.s_h)(x + n, to, m);
  }
}

// What pooling makes of images, laid as they are: pixels(images, results) where their channels lie side by side, else
// plane(values, results, i) for each plane i.
template <typename S, typename Pixels, typename Plane>
py::array pooled(const py::array& given, Pair size, int64_t grain, Isa isa, const Pixels& pixels, const Plane& plane) {
  const bool last = lies_last(given);
  const py::array x = last ? given : laid(given, false);
  py::array y = empty_images(x, x.dtype(), x.shape(0), x.shape(1), size[0], size[1]);
  const PixelImages<S> images = pixels_of<S>(x);
  const int64_t planes = x.shape(0) * x.shape(1), values = x.shape(2) * x.shape(3), results = size[0] * size[1];
  S* const to = data_of<S>(y);
  {
    py::gil_scoped_release release;
    if (last) {
      pixels(images, to);
    } else {
      parallel_for(planes, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          widened(images.data + i * values, values, to + i * results, results, isa,
                  [&](const auto* from, auto* sums) { plane(from, sums, i); });
        }
      });
    }
  }
  return y;
}

}  // namespace ulpgrad
