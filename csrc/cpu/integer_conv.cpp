// Integer convolution: weights times columns of pixels, where rows of channels are long. Columns (integer_columns.h)
// are written block by block, so that each stays in the cache until it is multiplied; a 1 x 1 kernel reads the image as
// it stands. Where channels lie side by side, or rows are short, patches of channels are quicker to write
// (integer_conv_patches.cpp). Groups of one channel are no product of matrices (integer_conv_depthwise.cpp).
#include "integer_conv.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <limits>

#include "batches.h"
#include "integer_columns.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kColumnBytes = int64_t{1} << 18;  // of one block
constexpr int64_t kMostPixels = 1024;               // of one block
constexpr int64_t kGrain = int64_t{1} << 18;        // products that make one more thread worth its start
constexpr int64_t kShortRow = 32;                   // of outputs, for which patches are quicker
constexpr int64_t kPatchChannels = 8;               // from which on they are
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

// The product of weights and columns, block by block.
struct Columns : IntegerConv {
  // Pixels [first, first + count) of one group of one image, times the group's weights; `memory` is for the columns.
  IntegerGemm block(int64_t image_index, int64_t group, int64_t first, int64_t count, void* memory) const {
    IntegerGemm g = gemm;
    const char* x = image + (image_index * image_step + group * w.channels * w.channel_step) * size_x;
    if (w.is_plain()) {
      g.b = x + first * w.col_step * size_x, g.b_row = w.channel_step, g.b_col = w.col_step;
    } else {
      g.b = memory, g.b_row = count, g.b_col = 1;
      if (g.b_codes == Codes::int8)
        columns(w, reinterpret_cast<const int8_t*>(x), first, count, static_cast<int8_t*>(memory), count);
      if (g.b_codes == Codes::uint8)
        columns(w, reinterpret_cast<const uint8_t*>(x), first, count, static_cast<uint8_t*>(memory), count);
      if (g.b_codes == Codes::int16)
        columns(w, reinterpret_cast<const int16_t*>(x), first, count, static_cast<int16_t*>(memory), count);
    }
    g.a = weight + group * g.m * w.taps() * size_w;
    g.n = count;
    g.c_first = (image_index * groups + group) * g.m * w.pixels() + first;
    g.c = out + g.c_first * size_out;
    return g;
  }

  int64_t block_pixels() const {
    const int64_t panel = table<IntegerTable>(isa).panel, most = kColumnBytes / std::max<int64_t>(1, w.taps() * size_x);
    return std::clamp(most / panel * panel, panel, kMostPixels);
  }

  void* memory(int64_t count) const {
    return w.is_plain() ? nullptr : scratch(Slot::caller, static_cast<size_t>(w.taps() * count * size_x));
  }

  void run() const {
    const int64_t pixels = w.pixels(), each = std::min(pixels, block_pixels()), blocks = (pixels + each - 1) / each;
    const int64_t tasks = images * groups * blocks;
    const int threads = threads_for(images * groups * gemm.m * pixels * std::max<int64_t>(1, w.taps()), kGrain);
    parallel_tasks(tasks, static_cast<int>(std::min<int64_t>(threads, tasks)), [&](int64_t task) {
      const int64_t first = task % blocks * each, count = std::min(each, pixels - first), plane = task / blocks;
      multiply(block(plane / groups, plane % groups, first, count, memory(count)), accumulator, isa);
    });
  }

  // The first k of the chunk in which the result at this position overflowed.
  int64_t overflow_step(int64_t position) const {
    const int64_t pixel = position % w.pixels(), plane = position / w.pixels(), row = plane % gemm.m;
    const int64_t group = plane / gemm.m % groups, index = plane / gemm.m / groups;
    return integer_result(block(index, group, pixel, 1, memory(1)), accumulator, row, 0).overflow;
  }
};

// (results, position of the first that overflowed or -1, the first k of the chunk in which it did).
py::tuple integer_conv2d(const py::array& given_x, const py::array& given_weight, Pair stride, Pair padding,
                         Pair dilation, int64_t groups, int64_t pad, int bits, int shift, const std::string& overflow,
                         const std::string& rounding, int64_t chunk, const std::string& name) {
  const IntegerIsa isa(name);
  Columns job{};
  job.accumulator = {bits, shift, overflow, rounding, chunk}, job.isa = isa.isa;
  check(job.accumulator);
  py::array x = usable(given_x);
  const py::array weight = py::array::ensure(given_weight, py::array::c_style);
  expect_ndim(x, 4, "x"), expect_ndim(weight, 4, "weight");
  IntegerGemm& g = job.gemm;
  g.a_codes = codes_of(weight, "weight"), g.b_codes = codes_of(x, "x"), g.vnni = isa.vnni, g.threaded = false;
  if (groups < 1 || weight.shape(0) % groups || x.shape(1) != weight.shape(1) * groups)
    throw py::value_error("integer_conv2d: channels differ: " + shape_text(x) + ", " + shape_text(weight));
  const int64_t lowest = g.b_codes == Codes::uint8 ? 0 : -largest(g.b_codes);
  if (pad < lowest || pad > largest(g.b_codes) - (g.b_codes != Codes::uint8))
    throw py::value_error("integer_conv2d: pad=" + std::to_string(pad) + " is no value of x's type");
  job.w =
      windows_of("integer_conv2d", x, weight.shape(1), {weight.shape(2), weight.shape(3)}, stride, padding, dilation);
  IntegerWindows& w = job.w;
  w.pad = pad;
  job.images = x.shape(0), job.groups = groups;
  g.m = weight.shape(0) / groups, g.k = w.taps(), g.a_row = w.taps(), g.a_col = 1, g.c_row = w.pixels();
  job.size_x = x.itemsize(), job.size_w = weight.itemsize();
  int64_t first = kNone, first_k = -1;
  g.overflowed = &first;
  {
    py::gil_scoped_release released;
    plan_product(g, job.accumulator, weight, x, w.padding == Pair{0, 0} ? 0 : std::abs(pad));
  }
  const bool channels_last = x.strides(1) == x.itemsize() && x.shape(1) > 1;
  const bool may = job.is_free() && w.channels >= kPatchChannels;
  const bool has_short_rows =
      x.strides(3) == x.itemsize() && w.out_cols < kShortRow && w.kernel_rows * w.kernel_cols > 1;
  const bool depthwise = is_depthwise(job), patches = may && (channels_last || has_short_rows);
  if (channels_last && !patches && !depthwise) x = py::array::ensure(x, py::array::c_style);
  if (!x) throw std::bad_alloc();
  lay(w, x), job.image_step = x.strides(0) / x.itemsize();
  const std::vector<py::ssize_t> shape{job.images, weight.shape(0), w.out_rows, w.out_cols};
  py::array out = bits > 32 ? py::array(empty<int64_t>(shape)) : py::array(empty<int32_t>(shape));
  job.image = static_cast<const char*>(x.data()), job.weight = static_cast<const char*>(weight.data());
  job.out = static_cast<char*>(out.mutable_data());
  job.size_out = out.itemsize();
  if (out.size() > 0) {
    py::gil_scoped_release released;
    if (depthwise) {
      convolve_depthwise(job);
    } else if (patches) {
      convolve_patches(job);
    } else {
      job.run();
    }
    if (first != kNone) first_k = job.overflow_step(first);
  }
  return py::make_tuple(out, first == kNone ? -1 : first, first_k);
}

void bind_integer_conv(py::module_& m) {
  m.def("integer_conv2d", &integer_conv2d, py::arg("x"), py::arg("weight"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"), py::arg("groups"), py::arg("pad") = 0, py::arg("bits") = 32, py::arg("shift") = 0,
        py::arg("overflow") = "wrap", py::arg("rounding") = "down", py::arg("chunk") = 0, py::arg("isa") = "",
        "Convolution of int8, uint8 or int16 images in an accumulator of `bits` bits; x may have any strides.");
}

const Binder binder(bind_integer_conv);

}  // namespace
}  // namespace ulpgrad
