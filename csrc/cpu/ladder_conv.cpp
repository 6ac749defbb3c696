// Binds the rungs of the convolution's ladder (ladder/conv_ladder.h) by name.
#include <algorithm>
#include <string>
#include <utility>

#include "bind.h"
#include "ladder/conv_ladder.h"
#include "ladder_rungs.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

Convolve rung_of(const std::string& name) {
  const ConvLadder& ladder = table<ConvLadder>();
  return rung_named<Convolve>("conv_ladder", name,
                              {{"loops", ladder.loops},
                               {"padded", ladder.padded},
                               {"rows", ladder.rows},
                               {"registers", ladder.registers},
                               {"tile", ladder.tile},
                               {"threads", ladder.threads}});
}

py::array conv_ladder(const std::string& rung, const py::array& x, const py::array& weight, const py::array& bias,
                      int64_t top, int64_t left) {
  const Convolve convolve = rung_of(rung);
  expect_ndim(x, 4, "x");
  expect_shape(weight, {-1, x.shape(1), -1, -1}, "weight");
  expect_shape(bias, {weight.shape(0)}, "bias");
  Windows w{x.shape(0),
            x.shape(1),
            x.shape(2),
            x.shape(3),
            weight.shape(0),
            weight.shape(2),
            weight.shape(3),
            top,
            left,
            contiguous<float>(x, "x"),
            contiguous<float>(weight, "weight"),
            contiguous<float>(bias, "bias"),
            nullptr,
            nullptr,
            1};
  if (top < 0 || left < 0 || w.rows() < 1 || w.columns() < 1) throw py::value_error("conv_ladder: no window fits");
  py::array_t<float> y = empty<float>({w.images, w.outputs, w.rows(), w.columns()});
  w.y = y.mutable_data();
  if (y.size() > 0) {
    py::gil_scoped_release released;
    if (rung == "threads") w.parts = std::clamp<int64_t>(num_threads(), 1, w.images);
    w.work = static_cast<float*>(scratch(Slot::caller, static_cast<size_t>(w.parts * w.part_size()) * sizeof(float)));
    convolve(w);
  }
  return std::move(y);
}

void bind_conv_ladder(py::module_& m) {
  m.def("conv_ladder", &conv_ladder, py::arg("rung"), py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("top"),
        py::arg("left"),
        "A convolution of contiguous float32 images with stride 1, by one rung of the teaching ladder.");
}

const Binder binder(bind_conv_ladder);

}  // namespace
}  // namespace ulpgrad
