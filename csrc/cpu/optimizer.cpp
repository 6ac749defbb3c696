// Optimizer steps on a list of parameters in one call: what costs per call is paid once, and small parameters share the
// threads with large ones.
#include "optimizer.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kPiece =
    1 << 10;                    // values; threads begin at multiples of it, so vectors lie alike on any number of them
constexpr int64_t kGrain = 32;  // pieces, about 10 us: less does not pay for a thread

// One parameter: p, g, up to two state arrays, null where there is none, and factors of g.
template <typename T>
struct Parameter {
  T* p;
  const T* g;
  T* state[2];
  const T* factors;
  int64_t factor_count, size, first_piece;
};

void check_size(const py::array& a, int64_t size, const char* name) {
  if (a.size() != size)
    throw py::value_error(std::string(name) + ": expected " + std::to_string(size) + " values, as the parameter has");
}

// Whether the bytes of two arrays overlap.
bool overlap(const py::array& a, const py::array& b) {
  const char *x = static_cast<const char*>(a.data()), *y = static_cast<const char*>(b.data());
  return x < y + b.nbytes() && y < x + a.nbytes();
}

// Takes over the factors of g; false where the switch is off.
template <typename T>
bool take_scaling(Parameter<T>& one, const py::object& scaling) {
  if (scaling.is_none()) return true;
  const py::array numbers = py::cast<py::array>(scaling);
  const T* given = contiguous<T>(numbers, "scaling");
  if (numbers.ndim() != 1 || numbers.size() < 1)
    throw py::value_error("scaling: expected one axis, of a switch and factors");
  one.factors = given + 1;
  one.factor_count = numbers.size() - 1;
  return given[0] != 0;
}

// Reads [(p, g, state..., scaling), ...]; every group has `states` state arrays, the last of which may be None if
// `optional`, and scaling, a switch and factors of g, or None. What is switched off is left out.
template <typename T>
std::vector<Parameter<T>> read(const py::sequence& groups, size_t states, bool optional) {
  std::vector<Parameter<T>> all;
  int64_t pieces = 0;
  for (const py::handle item : groups) {
    const py::sequence group = py::cast<py::sequence>(item);
    if (py::len(group) != 3 + states)
      throw py::value_error("expected (p, g, state..., scaling) of " + std::to_string(3 + states) + " arrays");
    py::array p = py::cast<py::array>(group[0]);
    const py::array g = py::cast<py::array>(group[1]);
    Parameter<T> one{writable<T>(p, "p"), contiguous<T>(g, "g"), {nullptr, nullptr}, nullptr, 0, p.size(), pieces};
    check_size(g, one.size, "g");
    if (overlap(p, g)) throw py::value_error("p and g share memory");
    for (size_t k = 0; k < states; ++k) {
      const py::object given = group[2 + k];
      if (given.is_none()) {
        if (!optional || k + 1 != states) throw py::type_error("state: expected an array, got None");
        continue;
      }
      py::array state = py::cast<py::array>(given);
      one.state[k] = writable<T>(state, "state");
      check_size(state, one.size, "state");
      if (overlap(state, p) || overlap(state, g) || (k == 1 && one.state[1] == one.state[0] && one.size > 0))
        throw py::value_error("state shares memory with another array of its parameter");
    }
    if (!take_scaling(one, group[2 + states])) continue;
    pieces += (one.size + kPiece - 1) / kPiece;
    all.push_back(one);
  }
  return all;
}

// run(parameter, offset, gradient, count) on values from `from` to `to`. Factors are applied a piece at a time, into
// memory that stays in the first-level cache: a product that is stored is rounded, and not joined with the step's next
// operation.
template <typename T, typename Run>
void over_range(const Parameter<T>& one, int64_t from, int64_t to, const Run& run) {
  if (!one.factor_count) return run(one, from, one.g + from, to - from);
  alignas(64) T scaled[kPiece];
  for (int64_t at = from; at < to; at += kPiece) {
    const int64_t n = std::min(kPiece, to - at);
    const T* source = one.g + at;
    for (int64_t k = 0; k < one.factor_count; ++k, source = scaled)
      for (int64_t i = 0; i < n; ++i) scaled[i] = source[i] * one.factors[k];
    run(one, at, source, n);
  }
}

// Calls run(parameter, offset, gradient, count) on pieces of all parameters.
template <typename T, typename Run>
void over_pieces(const std::vector<Parameter<T>>& all, const Run& run) {
  if (all.empty()) return;
  const Parameter<T>& last = all.back();
  const int64_t pieces = last.first_piece + (last.size + kPiece - 1) / kPiece;
  const py::gil_scoped_release free;
  parallel_for(pieces, kGrain, [&](int64_t begin, int64_t end) {
    for (const Parameter<T>& one : all) {
      const int64_t from = std::max<int64_t>(0, begin - one.first_piece) * kPiece;
      const int64_t to = std::min(one.size, (end - one.first_piece) * kPiece);
      if (from < to) over_range(one, from, to, run);
    }
  });
}

bool holds_double(const py::sequence& groups) {
  return py::len(groups) && py::isinstance<py::array_t<double>>(py::cast<py::sequence>(groups[0])[0]);
}

template <typename T, typename O, typename F>
void step_with_two(const py::sequence& groups, const O& o, F f, bool optional) {
  over_pieces<T>(read<T>(groups, 2, optional), [&](const Parameter<T>& one, int64_t at, const T* g, int64_t n) {
    f(o, one.p + at, g, one.state[0] + at, one.state[1] ? one.state[1] + at : nullptr, n);
  });
}

template <typename T, typename O, typename F>
void step_with_one(const py::sequence& groups, const O& o, F f, bool optional) {
  over_pieces<T>(read<T>(groups, 1, optional), [&](const Parameter<T>& one, int64_t at, const T* g, int64_t n) {
    f(o, one.p + at, g, one.state[0] ? one.state[0] + at : nullptr, n);
  });
}

void sgd_step(const py::sequence& groups, double lr, double momentum, double dampening, bool nesterov,
              double weight_decay, bool first, const char* isa) {
  const OptimizerTable& t = table<OptimizerTable>(isa_named(isa));
  const Sgd o{lr, momentum, dampening, weight_decay, nesterov, first};
  holds_double(groups) ? step_with_one<double>(groups, o, t.f64.sgd, true)
                       : step_with_one<float>(groups, o, t.f32.sgd, true);
}

void adam_step(const py::sequence& groups, double lr, double beta1, double beta2, double eps, double weight_decay,
               bool decoupled, int64_t step, const char* isa) {
  const OptimizerTable& t = table<OptimizerTable>(isa_named(isa));
  if (step < 1) throw py::value_error("step: expected at least 1, got " + std::to_string(step));
  const double count = static_cast<double>(step);
  const Adam o{lr, beta1, beta2, eps, weight_decay, 1 - std::pow(beta1, count), 1 - std::pow(beta2, count), decoupled};
  holds_double(groups) ? step_with_two<double>(groups, o, t.f64.adam, false)
                       : step_with_two<float>(groups, o, t.f32.adam, false);
}

void adagrad_step(const py::sequence& groups, double lr, double eps, double weight_decay, const char* isa) {
  const OptimizerTable& t = table<OptimizerTable>(isa_named(isa));
  const Adagrad o{lr, eps, weight_decay};
  holds_double(groups) ? step_with_one<double>(groups, o, t.f64.adagrad, false)
                       : step_with_one<float>(groups, o, t.f32.adagrad, false);
}

void rmsprop_step(const py::sequence& groups, double lr, double alpha, double eps, double momentum, double weight_decay,
                  const char* isa) {
  const OptimizerTable& t = table<OptimizerTable>(isa_named(isa));
  const Rmsprop o{lr, alpha, eps, momentum, weight_decay};
  holds_double(groups) ? step_with_two<double>(groups, o, t.f64.rmsprop, true)
                       : step_with_two<float>(groups, o, t.f32.rmsprop, true);
}

template <typename T>
py::array squares(const py::sequence& groups, const OptimizerFunctions<T>& table) {
  std::vector<Parameter<T>> all;
  int64_t pieces = 0;
  for (const py::handle item : groups) {
    const py::sequence group = py::cast<py::sequence>(item);
    if (py::len(group) != 2) throw py::value_error("expected (g, scaling)");
    const py::array g = py::cast<py::array>(group[0]);
    Parameter<T> one{nullptr, contiguous<T>(g, "g"), {nullptr, nullptr}, nullptr, 0, g.size(), pieces};
    take_scaling(one, group[1]);  // a step that is switched off has a norm all the same
    pieces += (one.size + kPiece - 1) / kPiece;
    all.push_back(one);
  }
  std::vector<double> sums(static_cast<size_t>(pieces));
  over_pieces<T>(all, [&](const Parameter<T>& one, int64_t at, const T* g, int64_t n) {
    for (int64_t from = 0; from < n; from += kPiece)
      sums[static_cast<size_t>(one.first_piece + (at + from) / kPiece)] =
          table.squares(g + from, std::min(kPiece, n - from));
  });
  py::array_t<double> out(static_cast<py::ssize_t>(all.size()));
  double* found = out.mutable_data();
  for (const Parameter<T>& one : all) {
    const double* first = sums.data() + one.first_piece;
    *found++ = std::accumulate(first, first + (one.size + kPiece - 1) / kPiece, 0.0);
  }
  return out;
}

py::array sum_of_squares(const py::sequence& groups, const char* isa) {
  const OptimizerTable& t = table<OptimizerTable>(isa_named(isa));
  return holds_double(groups) ? squares<double>(groups, t.f64) : squares<float>(groups, t.f32);
}

void bind_optimizer(py::module_& m) {
  using py::arg;
  m.def("sgd_step", &sgd_step, arg("groups"), py::kw_only(), arg("lr"), arg("momentum"), arg("dampening"),
        arg("nesterov"), arg("weight_decay"), arg("first"), arg("isa") = "",
        "SGD on [(p, g, buffer or None, scaling or None), ...].");
  m.def("adam_step", &adam_step, arg("groups"), py::kw_only(), arg("lr"), arg("beta1"), arg("beta2"), arg("eps"),
        arg("weight_decay"), arg("decoupled"), arg("step"), arg("isa") = "",
        "Adam or AdamW on [(p, g, m, v, scaling or None), ...].");
  m.def("adagrad_step", &adagrad_step, arg("groups"), py::kw_only(), arg("lr"), arg("eps"), arg("weight_decay"),
        arg("isa") = "", "AdaGrad on [(p, g, s, scaling or None), ...].");
  m.def("rmsprop_step", &rmsprop_step, arg("groups"), py::kw_only(), arg("lr"), arg("alpha"), arg("eps"),
        arg("momentum"), arg("weight_decay"), arg("isa") = "",
        "RMSProp on [(p, g, s, buffer or None, scaling or None), ...].");
  m.def("sum_of_squares", &sum_of_squares, arg("groups"), py::kw_only(), arg("isa") = "",
        "float64[n]: of each gradient in [(g, scaling or None), ...] the sum of squares of its scaled values.");
}

const Binder binder(bind_optimizer);

}  // namespace
}  // namespace ulpgrad
