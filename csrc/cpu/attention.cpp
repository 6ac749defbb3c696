// Attention: heads and blocks of queries are shared out among threads; backward shares out heads and, where there are
// few, ranges of keys whose contributions to dq are added up in order.
#include "attention.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <tuple>

#include "bind.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr double kGrain = 1 << 18;  // products that are worth a thread
constexpr int64_t kTasks = 8;       // fewer heads than this are cut into ranges of keys

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A format that is computed in: how it is stored, and what its sums are.
struct Form {
  py::dtype stored, real;
  const AttentionKernels* AttentionTable::* kernels;
};

Form form_of(const py::array& q) {
  const py::dtype f32 = py::dtype::of<float>(), f64 = py::dtype::of<double>(), bf16 = py::dtype::of<uint16_t>();
  const py::dtype f16("float16");
  if (q.dtype().equal(f32)) return {f32, f32, &AttentionTable::f32};
  if (q.dtype().equal(f64)) return {f64, f64, &AttentionTable::f64};
  if (q.dtype().equal(bf16)) return {bf16, f32, &AttentionTable::bf16};
  if (q.dtype().equal(f16)) return {f16, f32, &AttentionTable::f16};
  throw py::type_error("attention: expected q of float32, float64, float16 or (as bits) bfloat16, got " +
                       py::str(q.dtype()).cast<std::string>());
}

// An operand of that type, itself or a copy, of which every step but those of the leading axes is in whole values.
py::array checked(const py::array& a, const py::dtype& type, bool contiguous_rows, const char* name) {
  if (!a.dtype().equal(type))
    throw py::type_error(std::string("attention: expected ") + name + " of " + py::str(type).cast<std::string>() +
                         " values, got " + py::str(a.dtype()).cast<std::string>());
  const bool aligned = a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const bool rows = !contiguous_rows || a.shape(a.ndim() - 1) <= 1 || a.strides(a.ndim() - 1) == a.itemsize();
  return aligned && rows ? a : py::array(a.attr("copy")("C"));
}

// Where each head of [..., rows, columns] starts, in bytes. On the last leading axis, `share` heads in a row are one.
std::vector<int64_t> starts(const py::array& a, int64_t heads, int64_t share = 1) {
  std::vector<int64_t> all(heads, 0);
  for (int64_t head = 0; head < heads; ++head) {
    int64_t rest = head / share;
    for (int64_t axis = a.ndim() - 3; axis >= 0; --axis) {
      all[head] += rest % a.shape(axis) * a.strides(axis);
      rest /= a.shape(axis);
    }
  }
  return all;
}

// `share`: by how much the last leading axis of q is longer.
void expect_like(const py::array& a, const py::array& q, int64_t rows, int64_t columns, int64_t share,
                 const char* name) {
  const int64_t axes = q.ndim();
  bool same = a.ndim() == axes;
  for (int64_t axis = 0; same && axis < axes - 2; ++axis)
    same = a.shape(axis) * (axis == axes - 3 ? share : 1) == q.shape(axis);
  same = same && (rows == -1 || a.shape(axes - 2) == rows) && (columns == -1 || a.shape(axes - 1) == columns);
  if (!same)
    throw py::value_error(std::string("attention: ") + name + " has shape " + shape_text(a) +
                          ", which does not fit q " + shape_text(q));
}

// One operand: its values and where its heads start.
struct Operand {
  py::array array;
  std::vector<int64_t> start;
  const char* data;
  int64_t row;

  Operand(const py::array& a, const py::dtype& type, int64_t heads, int64_t share, const char* name)
      : array(checked(a, type, true, name)),
        start(starts(array, heads, share)),
        data(static_cast<const char*>(array.data())),
        row(array.strides(array.ndim() - 2) / array.itemsize()) {}
  AttentionRows rows(int64_t head) const { return {data + start[head], row}; }
};

// As Python gives it: key, the counter's halves, the limit and the share of AttentionDropout.
using Dropout = std::tuple<uint64_t, uint64_t, uint64_t, uint64_t, double>;

// How many queries, or keys, each batch entry has: all, unless it is given.
struct Lengths {
  py::array_t<int64_t> kept;
  int64_t all;

  Lengths(const py::object& given, int64_t batches, int64_t all, const char* name) : all(all) {
    if (given.is_none()) return;
    kept = py::cast<py::array_t<int64_t, py::array::c_style>>(given);
    if (kept.size() != batches)
      throw py::value_error(std::string("attention: ") + name + " has shape " + shape_text(kept) +
                            ", expected one value for each of " + std::to_string(batches) + " batch entries");
    for (int64_t i = 0; i < batches; ++i) {
      if (kept.data()[i] < 0 || kept.data()[i] > all)
        throw py::value_error(std::string("attention: ") + name + " of " + std::to_string(kept.data()[i]) +
                              ", expected 0 to " + std::to_string(all));
    }
  }
  int64_t operator[](int64_t batch) const { return kept.size() ? kept.data()[batch] : all; }
};

// All operands, checked. `queries` and `keys` are the most that a batch entry has. Heads point into it.
struct Problem {
  Form form;
  int64_t heads = 1, share = 1, queries, keys, size, value_size;
  std::vector<AttentionHead> all;
  std::vector<Operand> kept;
  py::array mask_kept;
  AttentionDropout dropout;

  Problem(const py::array& q, const py::array& k, const py::array& v, const py::object& mask, bool is_causal,
          double scale, const py::object& query_lengths, const py::object& key_lengths, bool lower_right,
          const std::optional<Dropout>& drop)
      : form(form_of(q)) {
    const int64_t axes = q.ndim();
    if (axes < 2) throw py::value_error("attention: expected q of [..., length, size], got shape " + shape_text(q));
    queries = q.shape(axes - 2), size = q.shape(axes - 1);
    if (axes > 2 && k.ndim() == axes && k.shape(axes - 3) > 0) share = q.shape(axes - 3) / k.shape(axes - 3);
    expect_like(k, q, -1, size, share, "k");
    keys = k.shape(axes - 2);
    expect_like(v, q, keys, -1, share, "v");
    value_size = v.shape(axes - 1);
    for (int64_t axis = 0; axis < axes - 2; ++axis) heads *= q.shape(axis);
    kept = {Operand(q, form.stored, heads, 1, "q"), Operand(k, form.stored, heads, share, "k"),
            Operand(v, form.stored, heads, share, "v")};
    AttentionMask common;
    std::vector<int64_t> mask_start(heads, 0);
    if (!mask.is_none()) {
      mask_kept = py::cast<py::array>(mask);
      expect_like(mask_kept, q, queries, keys, 1, "mask");
      common.is_bool = py::isinstance<py::array_t<bool>>(mask_kept);
      if (!common.is_bool) mask_kept = checked(mask_kept, form.real, false, "mask");
      common.row = mask_kept.strides(axes - 2) / mask_kept.itemsize();
      common.column = mask_kept.strides(axes - 1) / mask_kept.itemsize();
      mask_start = starts(mask_kept, heads);
    }
    const int64_t together = axes > 2 ? std::max<int64_t>(1, q.shape(axes - 3)) : 1;  // heads of a batch entry
    const Lengths own_queries(query_lengths, heads / together, queries, "query_lengths");
    const Lengths own_keys(key_lengths, heads / together, keys, "key_lengths");
    for (int64_t head = 0; head < heads; ++head) {
      AttentionMask own = common;
      if (!mask.is_none()) own.data = static_cast<const char*>(mask_kept.data()) + mask_start[head];
      const int64_t rows = own_queries[head / together], columns = own_keys[head / together];
      all.push_back({rows, columns, size, value_size, is_causal, scale, kept[0].rows(head), kept[1].rows(head),
                     kept[2].rows(head), own, lower_right ? columns - rows : 0});
    }
    if (drop) {
      const auto [key, low, high, limit, share] = *drop;
      if (limit > uint64_t{1} << 32 || !(share > 0 && share <= 1))
        throw py::value_error("attention: expected a dropout of (key, low, high, limit up to 2^32, share above 0)");
      dropout = {key, low, high, limit, share};
      for (int64_t head = 0; head < heads; ++head) {
        all[head].dropout = &dropout, all[head].first_weight = static_cast<uint64_t>(head * queries * keys);
        all[head].row_of_weights = keys;
      }
    }
  }

  // A head with as many queries and keys as any has.
  AttentionHead largest() const {
    AttentionHead head = all[0];
    head.queries = queries, head.keys = keys;
    return head;
  }

  int threads(int64_t tasks) const {
    const double work = double(heads) * double(queries) * double(keys) * double(size + value_size);
    const int64_t steps = static_cast<int64_t>(std::min(work / kGrain, double(tasks)));
    return static_cast<int>(std::min(int64_t{threads_for(steps, 1)}, std::max<int64_t>(1, tasks)));
  }

  // The kernels that serve: the CPU's dot products of bfloat16 if they are asked for and no value is too small for
  // them.
  const AttentionKernels& kernels(const AttentionTable& table, bool dots, const std::vector<Operand>& more = {}) const {
    if (!dots || !has_avx512_bf16() || !table.bf16_dots || form.kernels != &AttentionTable::bf16)
      return *(table.*form.kernels);
    bool tiny = false;
    const auto look = [&](const Operand& a, int64_t every, int64_t AttentionHead::* rows, int64_t columns) {
      const int64_t most = rows == &AttentionHead::keys ? keys : queries;
      parallel_for(heads / every, 1 + (1 << 18) / (1 + most * columns), [&](int64_t begin, int64_t end) {
        for (int64_t head = begin; head < end; ++head) {
          if (table.has_tiny(a.rows(head * every), all[head * every].*rows, columns)) {
#pragma omp atomic write
            tiny = true;
          }
        }
      });
    };
    look(kept[0], 1, &AttentionHead::queries, size);
    look(kept[1], share, &AttentionHead::keys, size);
    look(kept[2], share, &AttentionHead::keys, value_size);
    for (const Operand& a : more) look(a, 1, &AttentionHead::queries, value_size);
    return *(tiny ? table.bf16 : table.bf16_dots);
  }
};

// Working memory for each thread, got before they start: what fails in them could not be reported.
class Memories {
 public:
  Memories(int threads, int64_t bytes)
      : bytes_(ceil_div(bytes, 64) * 64), all_(static_cast<char*>(scratch(Slot::caller, threads * bytes_))) {}
  void* mine() const { return all_ + thread_index() * bytes_; }

 private:
  int64_t bytes_;
  char* all_;
};

// V as forward's product wants it, once for all blocks of queries that it meets.
void pack_values(Problem& p, const AttentionKernels& run) {
  const int64_t bytes = ceil_div(run.values_memory(p.largest()), 64) * 64, groups = p.heads / p.share;
  const int64_t blocks = ceil_div(p.keys, kAttentionKeys), grain = 1 + (1 << 16) / (1 + kAttentionKeys * p.value_size);
  char* const to = static_cast<char*>(scratch(Slot::weights, groups * bytes));
  parallel_for(groups * blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / blocks, key = i % blocks * kAttentionKeys;
      const AttentionHead& head = p.all[group * p.share];
      if (key < head.keys) run.pack_values(head, key, std::min(key + kAttentionKeys, head.keys), to + group * bytes);
    }
  });
  for (int64_t head = 0; head < p.heads; ++head) p.all[head].values = to + head / p.share * bytes;
}

// The shape of q with another last axis, or without it.
std::vector<py::ssize_t> like(const py::array& q, int64_t last) {
  std::vector<py::ssize_t> shape(q.shape(), q.shape() + q.ndim() - 1);
  if (last >= 0) shape.push_back(last);
  return shape;
}

std::vector<py::ssize_t> shape_of(const py::array& a) { return {a.shape(), a.shape() + a.ndim()}; }

// Rows of results that attend to nothing: y of zeros, and logarithms of a sum of nothing.
void write_nothing(const Problem& p, int64_t rows, char* y, int64_t y_row, char* lse) {
  if (rows <= 0) return;
  memset(y, 0, rows * y_row);
  if (p.form.real.itemsize() == sizeof(double)) {
    std::fill_n(reinterpret_cast<double*>(lse), rows, -HUGE_VAL);
  } else {
    std::fill_n(reinterpret_cast<float*>(lse), rows, -HUGE_VALF);
  }
}

py::tuple attention(const py::array& q, const py::array& k, const py::array& v, const py::object& mask, bool is_causal,
                    double scale, const py::object& query_lengths, const py::object& key_lengths, bool lower_right,
                    const std::optional<Dropout>& dropout, bool dots, const char* isa) {
  const AttentionTable& table = ulpgrad::table<AttentionTable>(isa_named(isa));
  Problem p(q, k, v, mask, is_causal, scale, query_lengths, key_lengths, lower_right, dropout);
  py::array y = empty(p.form.stored, like(q, p.value_size)), lse = empty(p.form.real, like(q, -1));
  char *const to = static_cast<char*>(y.mutable_data()), *const lse_to = static_cast<char*>(lse.mutable_data());
  const int64_t y_row = p.value_size * y.itemsize(), lse_row = lse.itemsize();
  {
    py::gil_scoped_release release;
    if (p.heads * p.queries > 0) {
      const AttentionKernels& run = p.kernels(table, dots);
      const int64_t blocks = ceil_div(p.queries, kAttentionQueries), tasks = p.heads * blocks;
      if (p.queries > kAttentionFew && p.share * blocks > 1 && run.values_memory(p.largest()) > 0) pack_values(p, run);
      const int threads = p.threads(tasks);
      const Memories memory(threads, run.forward_memory(p.all[0]));
      parallel_tasks(tasks, threads, [&](int64_t task) {
        const int64_t head = task / blocks, first = (blocks - 1 - task % blocks) * kAttentionQueries;  // longest first
        const int64_t row = head * p.queries + first, own = p.all[head].queries;
        if (first < own) run.forward(p.all[head], first, to + row * y_row, lse_to + row * lse_row, memory.mine());
        const int64_t from = std::max(first, own), end = std::min(first + kAttentionQueries, p.queries);
        write_nothing(p, end - from, to + (row + from - first) * y_row, y_row, lse_to + (row + from - first) * lse_row);
      });
    }
  }
  return py::make_tuple(y, lse);
}

py::tuple attention_gradient(const py::array& g, const py::array& q, const py::array& k, const py::array& v,
                             const py::object& mask, const py::array& y, const py::array& lse, bool is_causal,
                             double scale, const py::object& query_lengths, const py::object& key_lengths,
                             bool lower_right, const std::optional<Dropout>& dropout, bool dots, const char* isa) {
  const AttentionTable& table = ulpgrad::table<AttentionTable>(isa_named(isa));
  const Problem p(q, k, v, mask, is_causal, scale, query_lengths, key_lengths, lower_right, dropout);
  expect_like(g, q, p.queries, p.value_size, 1, "g");
  expect_like(y, q, p.queries, p.value_size, 1, "y");
  const std::vector<Operand> more = {Operand(g, p.form.stored, p.heads, 1, "g"),
                                     Operand(y, p.form.stored, p.heads, 1, "y")};
  if (lse.size() != p.heads * p.queries)
    throw py::value_error("attention: lse has shape " + shape_text(lse) + ", expected one value per query");
  const py::array lses = checked(lse, p.form.real, false, "lse").attr("ravel")();
  py::array dq = empty(p.form.stored, shape_of(q)), dk = empty(p.form.stored, shape_of(k)),
            dv = empty(p.form.stored, shape_of(v));
  const int64_t item = dq.itemsize(), real = lses.itemsize();
  const char* const lse_from = static_cast<const char*>(lses.data());
  char *const dq_to = static_cast<char*>(dq.mutable_data()), *const dk_to = static_cast<char*>(dk.mutable_data()),
              *const dv_to = static_cast<char*>(dv.mutable_data());
  {
    py::gil_scoped_release release;
    const int64_t groups = p.heads / p.share, blocks = ceil_div(p.keys, kGradientKeys);
    const int64_t width = attention_width(p.size), rows = p.heads * p.queries, part = rows * width;
    const int64_t parts =
        std::clamp<int64_t>(ceil_div(kTasks, std::max<int64_t>(1, groups)), 1, std::max<int64_t>(1, blocks));
    const bool direct = parts == 1 && width == p.size && item == real;
    const AttentionKernels& run = p.kernels(table, dots, more);
    const std::unique_ptr<char[]> sums(direct ? nullptr : new char[parts * part * real]);
    char* const sums_to = direct ? dq_to : sums.get();
    std::vector<AttentionRows> g_rows(p.heads), y_rows(p.heads);
    std::vector<const void*> lse_rows(p.heads);
    std::vector<void*> dq_rows(p.heads * parts);
    for (int64_t head = 0; head < p.heads; ++head) {
      g_rows[head] = more[0].rows(head), y_rows[head] = more[1].rows(head);
      lse_rows[head] = lse_from + head * p.queries * real;
      for (int64_t i = 0; i < parts; ++i)
        dq_rows[i * p.heads + head] = sums_to + (i * part + head * p.queries * width) * real;
    }
    const auto task = [&](int64_t i) -> AttentionGradient {
      const int64_t group = i / parts, head = group * p.share, at = i % parts;
      return {&p.all[head],
              &g_rows[head],
              &y_rows[head],
              &lse_rows[head],
              &dq_rows[at * p.heads + head],
              p.share,
              at * blocks / parts * kGradientKeys,
              std::min((at + 1) * blocks / parts * kGradientKeys, p.all[head].keys),
              dk_to + group * p.keys * p.size * item,
              dv_to + group * p.keys * p.value_size * item};
    };
    const int64_t tasks = groups * parts;
    if (tasks > 0) {
      const int threads = p.threads(tasks);
      AttentionGradient most = task(0);
      const AttentionHead largest = p.largest();
      most.heads = &largest;
      const Memories memory(threads, run.backward_memory(most));
      parallel_tasks(tasks, threads, [&](int64_t i) {
        const AttentionGradient x = task(i);
        for (int64_t h = 0; h < p.share; ++h) memset(x.dq[h], 0, p.queries * width * real);
        if (x.begin < x.end) run.backward(x, memory.mine());
        const int64_t end = std::min((i % parts + 1) * blocks / parts * kGradientKeys, p.keys);
        const int64_t from = std::min(end, std::max(x.begin, x.end));  // keys that are none
        memset(static_cast<char*>(x.dk) + from * p.size * item, 0, (end - from) * p.size * item);
        memset(static_cast<char*>(x.dv) + from * p.value_size * item, 0, (end - from) * p.value_size * item);
      });
    }
    if (!direct) {
      parallel_for(rows, 1 + (1 << 16) / (1 + parts * width), [&](int64_t begin, int64_t end) {
        run.add_parts(sums_to + begin * width * real, parts, part, end - begin, p.size, dq_to + begin * p.size * item);
      });
    }
  }
  return py::make_tuple(dq, dk, dv);
}

void bind_attention(py::module_& m) {
  m.def("attention", &attention,
        "(y, lse) of heads of one format; operands of any strides with equal leading axes, of which the last may be "
        "longer in q than in k and v. Lengths (int64, one for each batch entry): how many queries and keys there are; "
        "what lies behind is not read. `lower_right`: where causal, the last query sees the last key. `dropout`: (key, "
        "low half of the counter, high half, limit, share): weights whose word is below the limit are dropped, others "
        "divided by the share. `dots`: bfloat16 by the CPU's dot products where it has them.",
        py::arg("q"), py::arg("k"), py::arg("v"), py::arg("mask").none(true), py::kw_only(), py::arg("is_causal"),
        py::arg("scale"), py::arg("query_lengths") = py::none(), py::arg("key_lengths") = py::none(),
        py::arg("lower_right") = false, py::arg("dropout") = py::none(), py::arg("dots") = true, py::arg("isa") = "");
  m.def("attention_gradient", &attention_gradient, "(dq, dk, dv) of attention.", py::arg("g"), py::arg("q"),
        py::arg("k"), py::arg("v"), py::arg("mask").none(true), py::arg("y"), py::arg("lse"), py::kw_only(),
        py::arg("is_causal"), py::arg("scale"), py::arg("query_lengths") = py::none(),
        py::arg("key_lengths") = py::none(), py::arg("lower_right") = false, py::arg("dropout") = py::none(),
        py::arg("dots") = true, py::arg("isa") = "");
}

const Binder binder(bind_attention);

}  // namespace
}  // namespace ulpgrad
