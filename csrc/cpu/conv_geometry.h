// What the three functions of a convolution check and share.
#pragma once

#include "bind.h"
#include "conv_planes.h"

namespace ulpgrad {

using Sizes = std::array<int64_t, 3>;  // along depth, height and width

// Those of an image: along its depth there is one step.
inline Sizes deep(Pair sizes, int64_t depth) { return {depth, sizes[0], sizes[1]}; }
inline Sizes sizes_of(const py::array& a) {
  const auto n = a.ndim();
  return {n > 4 ? a.shape(2) : 1, a.shape(n - 2), a.shape(n - 1)};
}

struct Geometry {
  int64_t images, groups, inputs, outputs;  // channels of one group
  Pair size, kernel, stride, padding, dilation, positions;
  struct {
    int64_t size, kernel, stride, padding, dilation, positions;
    Depth along() const { return {positions, stride}; }
  } depth;

  std::vector<Tap> taps(int64_t weight_slice, int64_t weight_row, int64_t weight_column) const {
    std::vector<Tap> all;
    for (int64_t d = 0; d < depth.kernel; ++d) {
      for (int64_t i = 0; i < kernel[0]; ++i) {
        for (int64_t j = 0; j < kernel[1]; ++j) {
          const int64_t weight = d * weight_slice + i * weight_row + j * weight_column;
          all.push_back({i * dilation[0], j * dilation[1], weight, d * depth.dilation});
        }
      }
    }
    return all;
  }
};

// Raises ValueError for what is no convolution.
Geometry checked(int64_t images, int64_t inputs, int64_t outputs, Sizes size, Sizes kernel, Sizes stride, Sizes padding,
                 Sizes dilation, int64_t groups);

// Raises ValueError unless `a` holds as many channels and the geometry's positions for each image.
void expect_positions(const py::array& a, const Geometry& g, int64_t channels, const char* name);

// Images, or volumes if there are five axes.
template <typename S>
Images<const S> images_of(const py::array& a) {
  const auto n = static_cast<int>(a.ndim());
  const auto step = [&](int axis) { return a.strides(axis) / static_cast<int64_t>(sizeof(S)); };
  Images<const S> all{
      static_cast<const S*>(a.data()), step(0), step(1), step(n - 2), step(n - 1), a.shape(n - 2), a.shape(n - 1)};
  if (n > 4) all.slice = step(2), all.depth = a.shape(2);
  return all;
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
// Volumes, if `like` holds volumes.
py::array empty_images(const py::array& like, int64_t n, int64_t c, Sizes sizes);

}  // namespace ulpgrad
