// What the three functions of a convolution check and share.
#pragma once

#include "bind.h"
#include "conv_planes.h"

namespace ulpgrad {

struct Geometry {
  int64_t images, groups, inputs, outputs;  // channels of one group
  Pair size, kernel, stride, padding, dilation, positions;

  std::vector<Tap> taps(int64_t weight_row, int64_t weight_column) const {
    std::vector<Tap> all;
    for (int64_t i = 0; i < kernel[0]; ++i) {
      for (int64_t j = 0; j < kernel[1]; ++j) {
        all.push_back({i * dilation[0], j * dilation[1], i * weight_row + j * weight_column});
      }
    }
    return all;
  }
};

// Raises ValueError for what is no convolution.
Geometry checked(int64_t images, int64_t inputs, int64_t outputs, Pair size, Pair kernel, Pair stride, Pair padding,
                 Pair dilation, int64_t groups);

template <typename S>
Images<const S> images_of(const py::array& a) {
  const auto step = [&](int axis) { return a.strides(axis) / static_cast<int64_t>(sizeof(S)); };
  return {static_cast<const S*>(a.data()), step(0), step(1), step(2), step(3), a.shape(2), a.shape(3)};
}

// Calls body(S()) with the type of an array's values: float32, float64, or 16-bit floats (bfloat16 as the uint16 that
// store it). Raises TypeError for others.
template <typename Body>
auto with_type(const py::array& a, const char* name, const Body& body) {
  const char kind = a.dtype().kind();
  const auto size = a.itemsize();
  if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw py::value_error(std::string(name) + ": not aligned");
  if (kind == 'f' && size == 4) return body(float());
  if (kind == 'f' && size == 8) return body(double());
  if (kind == 'f' && size == 2) return body(Float16());
  if (kind == 'u' && size == 2) return body(Bfloat16());
  throw py::type_error(std::string(name) + ": expected floats, got " + py::str(a.dtype()).cast<std::string>());
}

// Raises TypeError unless both hold the same type, and ValueError unless `b` has `ndim` axes.
void expect_like(const py::array& a, const py::array& b, int64_t ndim, const char* name);

// A new array of images that lie as those of `like` do: channels last if its are, else contiguous.
py::array empty_images(const py::array& like, const py::dtype& dtype, int64_t n, int64_t c, int64_t h, int64_t w);

}  // namespace ulpgrad
