// Binds the rungs of the attention ladder (ladder/attention.h) by name.
#include "attention.h"
#include "bind.h"
#include "ladder/attention.h"
#include "ladder_rungs.h"
#include "scratch.h"

namespace ulpgrad {
namespace {

Attend rung_of(const std::string& name) {
  const AttentionLadder& ladder = table<AttentionLadder>();
  return rung_named<Attend>("attention_ladder", name,
                            {{"rows", ladder.rows},
                             {"vectors", ladder.vectors},
                             {"lanes", ladder.lanes},
                             {"tile", ladder.tile},
                             {"registers", ladder.registers}});
}

py::tuple attention_ladder(const std::string& rung, const py::array& q, const py::array& k, const py::array& v,
                           bool is_causal, float scale) {
  const Attend attend = rung_of(rung);
  expect_ndim(q, 3, "q");
  LadderHead x{q.shape(1),
               0,
               q.shape(2),
               0,
               is_causal,
               scale,
               contiguous<float>(q, "q"),
               contiguous<float>(k, "k"),
               contiguous<float>(v, "v"),
               nullptr,
               nullptr,
               nullptr};
  const int64_t heads = q.shape(0);
  expect_shape(k, {-1, -1, x.size}, "k");
  const int64_t served = k.shape(0) ? heads / k.shape(0) : 1;  // heads of q by one of k and v
  if (served * k.shape(0) != heads) throw py::value_error("k: expected a divisor of q's heads");
  x.keys = k.shape(1);
  expect_shape(v, {k.shape(0), x.keys, -1}, "v");
  x.value_size = v.shape(2);
  py::array_t<float> y = empty<float>({heads, x.queries, x.value_size}), lse = empty<float>({heads, x.queries});
  float *const to = y.mutable_data(), *const lse_to = lse.mutable_data();
  {
    py::gil_scoped_release released;
    const int64_t work = ladder_work(x.keys, x.size, attention_width(x.value_size));
    x.work = static_cast<float*>(scratch(Slot::caller, static_cast<size_t>(work) * sizeof(float)));
    const LadderHead first = x;
    for (int64_t head = 0; head < heads; ++head) {
      x.q = first.q + head * x.queries * x.size;
      x.k = first.k + head / served * x.keys * x.size;
      x.v = first.v + head / served * x.keys * x.value_size;
      x.y = to + head * x.queries * x.value_size;
      x.lse = lse_to + head * x.queries;
      attend(x);
    }
  }
  return py::make_tuple(y, lse);
}

void bind_attention_ladder(py::module_& m) {
  m.def("attention_ladder", &attention_ladder, py::arg("rung"), py::arg("q"), py::arg("k"), py::arg("v"), py::kw_only(),
        py::arg("is_causal"), py::arg("scale"),
        "(y, lse) of contiguous float32 heads [heads, length, size] by one rung of the teaching ladder.");
}

const Binder binder(bind_attention_ladder);

}  // namespace
}  // namespace ulpgrad
