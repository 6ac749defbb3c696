// Binds the rungs of the matmul ladder (ladder/matmul.h) by name.
#include "bind.h"
#include "ladder/matmul.h"
#include "ladder_rungs.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

Multiply rung_of(const std::string& name) {
  const MatmulLadder& ladder = table<MatmulLadder>();
  return rung_named<Multiply>("matmul_ladder", name,
                              {{"loops", ladder.loops},
                               {"rows", ladder.rows},
                               {"blocks", ladder.blocks},
                               {"tile", ladder.tile},
                               {"packed", ladder.packed},
                               {"threads", ladder.threads}});
}

py::array matmul_ladder(const std::string& rung, const py::array& a, const py::array& b) {
  const Multiply multiply = rung_of(rung);
  expect_ndim(a, 2, "a");
  Product x{a.shape(0), 0, a.shape(1), contiguous<float>(a, "a"), contiguous<float>(b, "b"), nullptr, nullptr};
  expect_shape(b, {x.k, -1}, "b");
  x.n = b.shape(1);
  py::array_t<float> out = empty<float>({x.m, x.n});
  x.c = out.mutable_data();
  if (out.size() > 0) {
    py::gil_scoped_release released;
    const auto size = static_cast<size_t>(num_threads() * kLadderWork);
    x.work = static_cast<float*>(scratch(Slot::caller, size * sizeof(float)));
    multiply(x);
  }
  return out;
}

void bind_matmul_ladder(py::module_& m) {
  m.def("matmul_ladder", &matmul_ladder, py::arg("rung"), py::arg("a"), py::arg("b"),
        "a[m, k] @ b[k, n] of contiguous float32 by one rung of the teaching ladder.");
}

const Binder binder(bind_matmul_ladder);

}  // namespace
}  // namespace ulpgrad
