// Pooling to a given size: planes are shared out among threads, or rows of results where channels lie side by side.
#include "pool_adaptive.h"

#include <pybind11/stl.h>

#include <vector>

#include "pool_images.h"

namespace ulpgrad {
namespace {

const AdaptiveKernels<float>& kernels(Isa isa, float) { return table<AdaptiveTable>(isa).f32; }
const AdaptiveKernels<double>& kernels(Isa isa, double) { return table<AdaptiveTable>(isa).f64; }

const PixelKernels<float>& pixel_kernels(Isa isa, float) { return table<PixelTable>(isa).f32; }
const PixelKernels<double>& pixel_kernels(Isa isa, double) { return table<PixelTable>(isa).f64; }
const PixelKernels<Bfloat16>& pixel_kernels(Isa isa, Bfloat16) { return table<PixelTable>(isa).b16; }
const PixelKernels<Float16>& pixel_kernels(Isa isa, Float16) { return table<PixelTable>(isa).f16; }

// Window i of `count` over `size` values: from floor(i * size / count) to before ceil((i + 1) * size / count). With the
// two exchanged, the windows that see a value.
std::vector<PoolSpan> spans_of(int64_t size, int64_t count) {
  std::vector<PoolSpan> all(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) all[i] = {i * size / count, ((i + 1) * size + count - 1) / count};
  return all;
}

std::vector<int32_t> sizes(const std::vector<PoolSpan>& spans) {
  std::vector<int32_t> all;
  for (const PoolSpan& s : spans) all.push_back(static_cast<int32_t>(s.end - s.begin));
  return all;
}

struct Windows {
  std::vector<PoolSpan> rows, columns;  // what each window sees
  AdaptiveGeometry geometry;

  Windows(Pair size, Pair positions) {
    for (const int64_t extent : {size[0], size[1], positions[0], positions[1]}) {
      if (extent < 1 || extent > INT32_MAX)
        throw py::value_error("adaptive pool: expected images and results of 1 to 2^31 - 1 rows and columns");
    }
    if (size[0] * size[1] > INT32_MAX) throw py::value_error("adaptive pool: images of more than 2^31 values");
    rows = spans_of(size[0], positions[0]), columns = spans_of(size[1], positions[1]);
    geometry = {size[0], size[1], positions[0], positions[1], rows.data(), columns.data()};
  }

  int64_t grain() const { return planes_for_a_thread(geometry.height * geometry.width + 4 * results()); }
  int64_t results() const { return geometry.rows * geometry.columns; }
};

template <typename S>
py::object mean_of(const py::array& x, const Windows& w, Isa isa) {
  const AdaptiveGeometry& p = w.geometry;
  const auto pixels = [&](const PixelImages<S>& images, S* to) {
    const int64_t line = p.columns * images.channels;
    parallel_for(images.images * p.rows, planes_for_a_thread(line), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        pixel_kernels(isa, S()).means({images.data + i / p.rows * images.image, images.row, images.column,
                                       images.channels, p.row_spans[i % p.rows], p.column_spans, p.columns, 0, nullptr,
                                       nullptr, to + i * line, images.channels});
      }
    });
  };
  return pooled<S>(x, {p.rows, p.columns}, w.grain(), isa, pixels,
                   [&](const auto* from, auto* to, int64_t) { kernels(isa, Wide<S>()).mean(p, from, to); });
}

template <typename S>
py::object mean_gradient_of(const py::array& g, const Windows& w, Isa isa) {
  const AdaptiveGeometry& p = w.geometry;
  expect_shape(g, {-1, -1, p.rows, p.columns}, "g");
  const auto pixels = [&](const PixelImages<S>& images, S* to) {
    const std::vector<PoolSpan> rows = spans_of(p.rows, p.height), columns = spans_of(p.columns, p.width);
    const std::vector<int32_t> row_parts = sizes(w.rows), column_parts = sizes(w.columns);
    const int64_t line = p.width * images.channels;
    parallel_for(images.images * p.height, planes_for_a_thread(line), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        pixel_kernels(isa, S()).means({images.data + i / p.height * images.image, images.row, images.column,
                                       images.channels, rows[i % p.height], columns.data(), p.width, 0,
                                       row_parts.data(), column_parts.data(), to + i * line, images.channels});
      }
    });
  };
  return pooled<S>(g, {p.height, p.width}, w.grain(), isa, pixels, [&](const auto* from, auto* to, int64_t) {
    std::fill(to, to + p.height * p.width, Wide<S>(0));
    kernels(isa, Wide<S>()).mean_gradient(p, from, to);
  });
}

template <typename S>
py::object max_of(const py::array& x, const Windows& w, Isa isa) {
  const AdaptiveGeometry& p = w.geometry;
  py::array indices = empty_images(x, py::dtype::of<int64_t>(), x.shape(0), x.shape(1), p.rows, p.columns);
  int64_t* const places = data_of<int64_t>(indices);
  const auto pixels = [&](const PixelImages<S>& images, S* to) {
    const int64_t channels = images.channels, line = p.columns * channels;
    parallel_for(images.images * p.rows, planes_for_a_thread(line), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const PoolSpan rows = p.row_spans[i % p.rows];
        for (int64_t q = 0; q < p.columns; ++q) {
          const PoolSpan columns = p.column_spans[q];
          const int64_t at = i * line + q * channels;
          pixel_kernels(isa, S()).maxima({images.data + i / p.rows * images.image,
                                          images.row,
                                          images.column,
                                          channels,
                                          rows.begin,
                                          columns.begin,
                                          {0, rows.end - rows.begin},
                                          columns.end - columns.begin,
                                          1,
                                          1,
                                          1,
                                          p.width,
                                          1,
                                          to + at,
                                          places + at,
                                          channels});
        }
      }
    });
  };
  const py::array y =
      pooled<S>(x, {p.rows, p.columns}, w.grain(), isa, pixels, [&](const auto* from, auto* to, int64_t i) {
        kernels(isa, Wide<S>()).max(p, from, to, places + i * w.results());
      });
  return py::make_tuple(y, indices);
}

void bind_adaptive_pool(py::module_& m) {
  m.def(
      "adaptive_avg_pool2d",
      [](const py::array& x, Pair output, const char* isa) {
        expect_ndim(x, 4, "x");
        const Windows w({x.shape(2), x.shape(3)}, output);
        return with_type(x, "x", [&](auto s) { return mean_of<decltype(s)>(x, w, isa_named(isa)); });
      },
      "Mean of each of output_size windows of images, in any strides; it lies as x does.", py::arg("x"), py::kw_only(),
      py::arg("output_size"), py::arg("isa") = "");
  m.def(
      "adaptive_avg_pool2d_gradient",
      [](const py::array& g, Pair size, const char* isa) {
        expect_ndim(g, 4, "g");
        const Windows w(size, {g.shape(2), g.shape(3)});
        return with_type(g, "g", [&](auto s) { return mean_gradient_of<decltype(s)>(g, w, isa_named(isa)); });
      },
      "Gradient of adaptive_avg_pool2d on images of `size`, which lies as g does.", py::arg("g"), py::kw_only(),
      py::arg("size"), py::arg("isa") = "");
  m.def(
      "adaptive_max_pool2d",
      [](const py::array& x, Pair output, const char* isa) {
        expect_ndim(x, 4, "x");
        const Windows w({x.shape(2), x.shape(3)}, output);
        return with_type(x, "x", [&](auto s) { return max_of<decltype(s)>(x, w, isa_named(isa)); });
      },
      "Maximum of each of output_size windows of images, and its place; both lie as x does.", py::arg("x"),
      py::kw_only(), py::arg("output_size"), py::arg("isa") = "");
}

const Binder binder(bind_adaptive_pool);

}  // namespace
}  // namespace ulpgrad
