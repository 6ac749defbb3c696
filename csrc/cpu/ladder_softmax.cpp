// Binds the rungs of the softmax ladder (ladder/softmax.h) by name.
#include "bind.h"
#include "ladder/softmax.h"
#include "ladder_rungs.h"

namespace ulpgrad {
namespace {

Softmax rung_of(const std::string& name) {
  const SoftmaxLadder& ladder = table<SoftmaxLadder>();
  return rung_named<Softmax>("softmax_ladder", name,
                             {{"passes", ladder.passes},
                              {"polynomial", ladder.polynomial},
                              {"lanes", ladder.lanes},
                              {"rows", ladder.rows},
                              {"sweeps", ladder.sweeps},
                              {"threads", ladder.threads}});
}

py::array softmax_ladder(const std::string& rung, const py::array& x) {
  const Softmax run = rung_of(rung);
  expect_ndim(x, 2, "x");
  const float* from = contiguous<float>(x, "x");
  py::array_t<float> out = empty<float>({x.shape(0), x.shape(1)});
  const SoftmaxRows rows{from, out.mutable_data(), x.shape(0), x.shape(1)};
  {
    const py::gil_scoped_release free;
    run(rows);
  }
  return out;
}

void bind_softmax_ladder(py::module_& m) {
  m.def("softmax_ladder", &softmax_ladder, py::arg("rung"), py::arg("x"),
        "Softmax along the rows of contiguous float32 by one rung of the teaching ladder.");
}

const Binder binder(bind_softmax_ladder);

}  // namespace
}  // namespace ulpgrad
