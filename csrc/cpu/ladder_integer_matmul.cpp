// Binds the rungs of the int8 matrix product's ladder (ladder/integer_matmul.h) by name.
#include <string>
#include <utility>

#include "bind.h"
#include "ladder/integer_matmul.h"
#include "ladder_rungs.h"
#include "scratch.h"

namespace ulpgrad {
namespace {

MultiplyIntegers rung_of(const std::string& name) {
  const IntegerLadder& ladder = table<IntegerLadder>(Isa::portable);
  return rung_named<MultiplyIntegers>("integer_matmul_ladder", name,
                                      {{"loops", ladder.loops},
                                       {"rows", ladder.rows},
                                       {"pairs", ladder.pairs},
                                       {"tile", ladder.tile},
                                       {"panels", ladder.panels}});
}

py::array integer_matmul_ladder(const std::string& rung, const py::array& a, const py::array& b) {
  const MultiplyIntegers multiply = rung_of(rung);
  expect_ndim(a, 2, "a");
  expect_shape(b, {a.shape(1), -1}, "b");
  IntegerProduct p{
      contiguous<int8_t>(a, "a"), contiguous<int8_t>(b, "b"), nullptr, nullptr, a.shape(0), b.shape(1), a.shape(1)};
  py::array_t<int32_t> c = empty<int32_t>({p.m, p.n});
  p.c = c.mutable_data();
  {
    py::gil_scoped_release released;
    constexpr int64_t rows = 6, widest = 32;  // of the tiles
    const int64_t words = p.pairs() * (p.n + widest + rows);
    p.work = static_cast<int32_t*>(scratch(Slot::caller, static_cast<size_t>(words) * sizeof(int32_t)));
    multiply(p);
  }
  return std::move(c);
}

void bind_integer_matmul_ladder(py::module_& m) {
  m.def("integer_matmul_ladder", &integer_matmul_ladder, py::arg("rung"), py::arg("a"), py::arg("b"),
        "A product of two contiguous int8 matrices by one rung of the teaching ladder; sums wrap in 32 bits.");
}

const Binder binder(bind_integer_matmul_ladder);

}  // namespace
}  // namespace ulpgrad
