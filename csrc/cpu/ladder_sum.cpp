// Binds the rungs of the ladder of sums (ladder/sum.h) by name.
#include "bind.h"
#include "ladder/sum.h"
#include "ladder_rungs.h"

namespace ulpgrad {
namespace {

Sums rung_of(const std::string& name) {
  const SumLadder& ladder = table<SumLadder>();
  return rung_named<Sums>(
      "sum_ladder", name,
      {{"loops", ladder.loops}, {"chains", ladder.chains}, {"lanes", ladder.lanes}, {"threads", ladder.threads}});
}

py::array sum_ladder(const std::string& rung, const py::array& x) {
  const Sums run = rung_of(rung);
  expect_ndim(x, 2, "x");
  const float* from = contiguous<float>(x, "x");
  py::array_t<float> out = empty<float>({x.shape(0)});
  const SumRows rows{from, out.mutable_data(), x.shape(0), x.shape(1)};
  {
    const py::gil_scoped_release free;
    run(rows);
  }
  return out;
}

void bind_sum_ladder(py::module_& m) {
  m.def("sum_ladder", &sum_ladder, py::arg("rung"), py::arg("x"),
        "Sums along the rows of contiguous float32 by one rung of the teaching ladder.");
}

const Binder binder(bind_sum_ladder);

}  // namespace
}  // namespace ulpgrad
