// Attention: heads and blocks of queries are shared out among threads; backward shares out heads and, where there are
// few, ranges of keys whose contributions to dq are added up in order.
#include "attention.h"

#include <algorithm>

#include "bind.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 18;  // products that are worth a thread
constexpr int64_t kTasks = 8;        // fewer heads than this are cut into ranges of keys

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A float32 operand whose rows are contiguous: itself, or a copy.
py::array with_contiguous_rows(const py::array& a, const char* name) {
  expect_type<float>(a, name);
  if (a.shape(a.ndim() - 1) <= 1 || stride<float>(a, a.ndim() - 1) == 1) return a;
  return py::array_t<float, py::array::c_style>(a);
}

// Where each head of [..., rows, columns] starts, in values of `item` bytes.
std::vector<int64_t> starts(const py::array& a, int64_t heads, int64_t item, int64_t inner_axes) {
  std::vector<int64_t> all(heads, 0);
  for (int64_t head = 0; head < heads; ++head) {
    int64_t rest = head;
    for (int64_t axis = a.ndim() - inner_axes - 1; axis >= 0; --axis) {
      all[head] += rest % a.shape(axis) * (a.strides(axis) / item);
      rest /= a.shape(axis);
    }
  }
  return all;
}

void expect_leading(const py::array& a, const py::array& q, int64_t rows, int64_t columns, const char* name) {
  bool same = a.ndim() == q.ndim();
  for (int64_t axis = 0; same && axis < q.ndim() - 2; ++axis) same = a.shape(axis) == q.shape(axis);
  same = same && (rows == -1 || a.shape(q.ndim() - 2) == rows) && (columns == -1 || a.shape(q.ndim() - 1) == columns);
  if (!same)
    throw py::value_error(std::string("attention: ") + name + " has shape " + shape_text(a) +
                          ", which does not fit q " + shape_text(q));
}

// One operand: its first value and where its heads start.
struct Operand {
  py::array array;
  std::vector<int64_t> start;

  Operand(const py::array& a, int64_t heads, const char* name)
      : array(with_contiguous_rows(a, name)), start(starts(array, heads, sizeof(float), 2)) {}
  AttentionRows rows(int64_t head) const {
    return {static_cast<const float*>(array.data()) + start[head], stride<float>(array, array.ndim() - 2)};
  }
};

// All operands, checked.
struct Problem {
  int64_t heads = 1, queries, keys, size, value_size;
  std::vector<AttentionHead> all;
  std::vector<Operand> kept;
  py::array mask_kept;

  Problem(const py::array& q, const py::array& k, const py::array& v, const py::object& mask, bool is_causal,
          float scale) {
    const int64_t axes = q.ndim();
    if (axes < 2) throw py::value_error("attention: expected q of [..., length, size], got shape " + shape_text(q));
    queries = q.shape(axes - 2), size = q.shape(axes - 1);
    expect_leading(k, q, -1, size, "k");
    keys = k.shape(axes - 2);
    expect_leading(v, q, keys, -1, "v");
    value_size = v.shape(axes - 1);
    for (int64_t axis = 0; axis < axes - 2; ++axis) heads *= q.shape(axis);
    kept = {Operand(q, heads, "q"), Operand(k, heads, "k"), Operand(v, heads, "v")};
    AttentionMask common;
    std::vector<int64_t> mask_start;
    if (!mask.is_none()) {
      mask_kept = py::cast<py::array>(mask);
      expect_leading(mask_kept, q, queries, keys, "mask");
      common.is_bool = py::isinstance<py::array_t<bool>>(mask_kept);
      if (!common.is_bool) expect_type<float>(mask_kept, "mask");
      const int64_t item = common.is_bool ? 1 : sizeof(float);
      common.row = mask_kept.strides(axes - 2) / item, common.column = mask_kept.strides(axes - 1) / item;
      mask_start = starts(mask_kept, heads, item, 2);
    }
    for (int64_t head = 0; head < heads; ++head) {
      AttentionMask own = common;
      if (!mask.is_none()) {
        own.data = static_cast<const char*>(mask_kept.data()) + mask_start[head] * (common.is_bool ? 1 : sizeof(float));
      }
      all.push_back({queries, keys, size, value_size, is_causal, scale, kept[0].rows(head), kept[1].rows(head),
                     kept[2].rows(head), own});
    }
  }

  int threads(int64_t tasks) const {
    return static_cast<int>(
        std::min<int64_t>(threads_for(heads * queries * keys * (size + value_size), kGrain), tasks));
  }
};

// The shape of q with another last axis, or without it.
std::vector<py::ssize_t> like(const py::array& q, int64_t last) {
  std::vector<py::ssize_t> shape(q.shape(), q.shape() + q.ndim() - 1);
  if (last >= 0) shape.push_back(last);
  return shape;
}

py::tuple attention(const py::array& q, const py::array& k, const py::array& v, const py::object& mask, bool is_causal,
                    float scale, const char* isa) {
  const AttentionTable& run = table<AttentionTable>(isa_named(isa));
  const Problem p(q, k, v, mask, is_causal, scale);
  py::array_t<float> y = empty<float>(like(q, p.value_size)), lse = empty<float>(like(q, -1));
  float *const to = y.mutable_data(), *const lse_to = lse.mutable_data();
  {
    py::gil_scoped_release release;
    const int64_t blocks = ceil_div(p.queries, kAttentionQueries), tasks = p.heads * blocks;
    parallel_tasks(tasks, p.threads(tasks), [&](int64_t task) {
      const int64_t head = task / blocks, first = (blocks - 1 - task % blocks) * kAttentionQueries;  // longest first
      const int64_t row = head * p.queries + first;
      float* const memory = static_cast<float*>(scratch(Slot::caller, run.forward_memory(p.all[head]) * sizeof(float)));
      run.forward(p.all[head], first, to + row * p.value_size, lse_to + row, memory);
    });
  }
  return py::make_tuple(y, lse);
}

py::tuple attention_gradient(const py::array& g, const py::array& q, const py::array& k, const py::array& v,
                             const py::object& mask, const py::array& y, const py::array& lse, bool is_causal,
                             float scale, const char* isa) {
  const AttentionTable& run = table<AttentionTable>(isa_named(isa));
  const Problem p(q, k, v, mask, is_causal, scale);
  expect_leading(g, q, p.queries, p.value_size, "g");
  expect_leading(y, q, p.queries, p.value_size, "y");
  const Operand gradients(g, p.heads, "g"), results(y, p.heads, "y");
  expect_type<float>(lse, "lse");
  if (lse.size() != p.heads * p.queries)
    throw py::value_error("attention: lse has shape " + shape_text(lse) + ", expected one value per query");
  const py::array_t<float, py::array::c_style> lses(lse);
  py::array_t<float> dq = empty<float>(like(q, p.size)), dk = empty<float>(like(k, p.size)),
                     dv = empty<float>(like(v, p.value_size));
  const float* const lse_from = lses.data();
  float *const dq_to = dq.mutable_data(), *const dk_to = dk.mutable_data(), *const dv_to = dv.mutable_data();
  {
    py::gil_scoped_release release;
    const int64_t blocks = ceil_div(p.keys, kAttentionKeys), width = ceil_div(p.size, 16) * 16;
    const int64_t chunks =
        std::clamp<int64_t>(ceil_div(kTasks, std::max<int64_t>(1, p.heads)), 1, std::max<int64_t>(1, blocks));
    const int64_t rows = p.heads * p.queries;
    const bool direct = chunks == 1 && width == p.size;
    std::vector<float> partials(direct ? 0 : chunks * rows * width);
    if (direct) std::fill(dq_to, dq_to + rows * width, 0.0f);
    const int64_t tasks = p.heads * chunks;
    parallel_tasks(tasks, p.threads(tasks), [&](int64_t task) {
      const int64_t head = task / chunks, chunk = task % chunks;
      const int64_t begin = chunk * blocks / chunks * kAttentionKeys;
      const int64_t end = std::min((chunk + 1) * blocks / chunks * kAttentionKeys, p.keys);
      float* const memory =
          static_cast<float*>(scratch(Slot::caller, run.backward_memory(p.all[head]) * sizeof(float)));
      float* const own = (direct ? dq_to : partials.data() + chunk * rows * width) + head * p.queries * width;
      run.backward(p.all[head],
                   {gradients.rows(head), results.rows(head), lse_from + head * p.queries, begin, end, own,
                    dk_to + head * p.keys * p.size, dv_to + head * p.keys * p.value_size},
                   memory);
    });
    for (int64_t i = 0; !direct && i < rows; ++i) {
      for (int64_t j = 0; j < p.size; ++j) {
        float sum = partials[i * width + j];
        for (int64_t chunk = 1; chunk < chunks; ++chunk) sum += partials[(chunk * rows + i) * width + j];
        dq_to[i * p.size + j] = sum;
      }
    }
  }
  return py::make_tuple(dq, dk, dv);
}

void bind_attention(py::module_& m) {
  m.def("attention", &attention, "(y, lse) of float32 heads; operands of any strides with equal leading axes.",
        py::arg("q"), py::arg("k"), py::arg("v"), py::arg("mask").none(true), py::kw_only(), py::arg("is_causal"),
        py::arg("scale"), py::arg("isa") = "");
  m.def("attention_gradient", &attention_gradient, "(dq, dk, dv) of attention.", py::arg("g"), py::arg("q"),
        py::arg("k"), py::arg("v"), py::arg("mask").none(true), py::arg("y"), py::arg("lse"), py::kw_only(),
        py::arg("is_causal"), py::arg("scale"), py::arg("isa") = "");
}

const Binder binder(bind_attention);

}  // namespace
}  // namespace ulpgrad
