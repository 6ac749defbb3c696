// Columns of whole batches, for the gradient of a convolution with respect to its filters: all that a weight has met
// lies in one row, image after image.
#include "integer_columns.h"

#include <pybind11/stl.h>

#include <limits>

#include "batches.h"
#include "threads.h"

namespace ulpgrad {

IntegerWindows windows_of(const std::string& op, const py::array& x, int64_t channels, const Pair& kernel,
                          const Pair& stride, const Pair& padding, const Pair& dilation) {
  const auto refuse = [&](const char* what) { throw py::value_error(op + ": " + what); };
  const int64_t most = std::numeric_limits<int32_t>::max();
  for (const Pair& p : {stride, dilation}) {
    if (p.first < 1 || p.second < 1 || p.first > most || p.second > most)
      refuse("expected strides and dilations from 1 to 2^31 - 1");
  }
  if (padding.first < 0 || padding.second < 0 || padding.first > most || padding.second > most)
    refuse("expected a padding from 0 to 2^31 - 1");
  if (kernel.first > most || kernel.second > most) refuse("expected kernels of at most 2^31 - 1");
  IntegerWindows w{};
  w.channels = channels, w.height = x.shape(2), w.width = x.shape(3);
  w.kernel_rows = kernel.first, w.kernel_cols = kernel.second;
  w.stride = stride, w.padding = padding, w.dilation = dilation;
  const auto positions = [](int64_t size, int64_t taps, int64_t step, int64_t edge, int64_t apart) {
    const int64_t room = size + 2 * edge - apart * (taps - 1) - 1;
    return taps < 1 || room < 0 ? 0 : room / step + 1;
  };
  w.out_rows = positions(w.height, w.kernel_rows, stride.first, padding.first, dilation.first);
  w.out_cols = positions(w.width, w.kernel_cols, stride.second, padding.second, dilation.second);
  if (w.out_rows < 1 || w.out_cols < 1) refuse("the kernel is larger than the padded image");
  return w;
}

void lay(IntegerWindows& w, const py::array& x) {
  w.channel_step = x.strides(1) / x.itemsize(), w.row_step = x.strides(2) / x.itemsize();
  w.col_step = x.strides(3) / x.itemsize();
}

namespace {

constexpr int64_t kGrain = int64_t{1} << 16;  // codes that make one more thread worth its start

// Of all channels of all images, which lie `image_step` apart.
template <typename T>
void write(const IntegerWindows& w, const void* x, int64_t images, int64_t image_step, int64_t channels, void* to) {
  const int64_t pixels = w.pixels(), taps = w.taps(), each = std::max<int64_t>(1, taps * pixels);
  const T* const from = static_cast<const T*>(x);
  T* const out = static_cast<T*>(to);
  parallel_for(channels * images, std::max<int64_t>(1, kGrain / each), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t channel = i / images, image = i % images;
      columns(w, from + image * image_step + channel * w.channel_step, 0, pixels,
              out + (channel * taps * images + image) * pixels, images * pixels);
    }
  });
}

// [c, kh, kw, n, oh, ow] of images [n, c, h, w]: what each tap meets at each position, 0 where that is padding.
py::array integer_columns(const py::array& given, Pair kernel, Pair stride, Pair padding, Pair dilation) {
  expect_ndim(given, 4, "x");
  const Codes codes = codes_of(given, "x");
  py::array x = usable(given);
  if (x.strides(3) != x.itemsize()) x = py::array::ensure(x, py::array::c_style);
  if (!x) throw std::bad_alloc();
  IntegerWindows w = windows_of("integer_columns", x, 1, kernel, stride, padding, dilation);
  lay(w, x);
  const std::vector<py::ssize_t> shape{x.shape(1), kernel.first, kernel.second, x.shape(0), w.out_rows, w.out_cols};
  py::array out = codes == Codes::int16  ? py::array(empty<int16_t>(shape))
                  : codes == Codes::int8 ? py::array(empty<int8_t>(shape))
                                         : py::array(empty<uint8_t>(shape));
  void* const to = out.mutable_data();
  const void* const from = x.data();
  const int64_t images = x.shape(0), channels = x.shape(1), image_step = x.strides(0) / x.itemsize();
  {
    py::gil_scoped_release released;
    if (codes == Codes::int16) {
      write<int16_t>(w, from, images, image_step, channels, to);
    } else {
      write<uint8_t>(w, from, images, image_step, channels, to);
    }
  }
  return out;
}

void bind_integer_columns(py::module_& m) {
  m.def("integer_columns", &integer_columns, py::arg("x"), py::arg("kernel"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"),
        "What each tap of a filter meets: [n, c, h, w] to [c, kh, kw, n, oh, ow]; x may have any strides.");
}

const Binder binder(bind_integer_columns);

}  // namespace
}  // namespace ulpgrad
