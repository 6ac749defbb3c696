// Binds matmul and linear: batches, strides and threads; the work is gemm's.
#include <pybind11/stl.h>

#include <optional>

#include "batches.h"
#include "gemm.h"
#include "threads.h"

namespace ulpgrad {
namespace {

// Work below which the batches of one call are not worth sharing out (multiply-adds).
constexpr int64_t kBatchGrain = int64_t{1} << 18;

template <typename T>
void run(Isa isa, const Gemm<T>& g) {
  if constexpr (sizeof(T) == 4) {
    table<GemmTable>(isa).f32(g);
  } else {
    table<GemmTable>(isa).f64(g);
  }
}

template <typename T>
py::array matmul_as(const py::array& given_a, const py::array& given_b, Isa isa) {
  const py::array a = usable(given_a), b = usable(given_b);
  expect_type<T>(a, "a");
  expect_type<T>(b, "b");
  const int64_t da = a.ndim(), db = b.ndim();
  if (da < 2 || db < 2 || a.shape(da - 1) != b.shape(db - 2))
    throw py::value_error("matmul: inner sizes differ: " + shape_text(a) + " @ " + shape_text(b));
  std::vector<py::ssize_t> shape = batch_shape(a, b);
  const std::vector<int64_t> at_a = batch_offsets(a, shape), at_b = batch_offsets(b, shape);
  Gemm<T> g;
  g.m = a.shape(da - 2), g.n = b.shape(db - 1), g.k = a.shape(da - 1);
  g.a_row = stride<T>(a, da - 2), g.a_col = stride<T>(a, da - 1);
  g.b_row = stride<T>(b, db - 2), g.b_col = stride<T>(b, db - 1);
  g.c_row = g.n;
  shape.push_back(g.m), shape.push_back(g.n);
  py::array_t<T> out = empty<T>(shape);
  const T *from_a = static_cast<const T*>(a.data()), *from_b = static_cast<const T*>(b.data());
  T* c = out.mutable_data();

  {
    py::gil_scoped_release released;
    const int64_t batches = static_cast<int64_t>(at_a.size()), work = g.m * g.n * std::max<int64_t>(1, g.k);
    const int threads = threads_for(batches * work, kBatchGrain);
    const bool shared = batches >= 2 * threads;  // else each product is shared out by itself
    g.threaded = !shared;
    parallel_tasks(batches, shared ? threads : 1, [&](int64_t i) {
      Gemm<T> one = g;
      one.a = from_a + at_a[i], one.b = from_b + at_b[i], one.c = c + i * g.m * g.n;
      run(isa, one);
    });
  }
  return out;
}

py::array matmul(const py::array& a, const py::array& b, const char* isa) {
  return a.itemsize() == 8 ? matmul_as<double>(a, b, isa_named(isa)) : matmul_as<float>(a, b, isa_named(isa));
}

Activation activation_named(const std::string& name) {
  const char* names[] = {"", "relu", "gelu", "silu", "tanh", "sigmoid"};
  for (int i = 0; i < 6; ++i)
    if (name == names[i]) return static_cast<Activation>(i);
  throw py::value_error("linear: activation='" + name + "': expected relu, gelu, silu, tanh or sigmoid");
}

template <typename T>
py::array linear_as(const py::array& given_x, const py::array& given_weight, const std::optional<py::array>& bias,
                    Activation activation, Isa isa) {
  const py::array x = usable(given_x), weight = usable(given_weight);
  expect_type<T>(x, "x");
  expect_type<T>(weight, "weight");
  expect_ndim(x, 2, "x");
  expect_ndim(weight, 2, "weight");
  Gemm<T> g;
  g.m = x.shape(0), g.n = weight.shape(0), g.k = x.shape(1);
  expect_shape(weight, {g.n, g.k}, "weight");
  if (bias) {
    g.bias = contiguous<T>(*bias, "bias");
    expect_shape(*bias, {g.n}, "bias");
  }
  g.a = static_cast<const T*>(x.data()), g.a_row = stride<T>(x, 0), g.a_col = stride<T>(x, 1);
  g.b = static_cast<const T*>(weight.data()), g.b_row = stride<T>(weight, 1), g.b_col = stride<T>(weight, 0);
  py::array_t<T> out = empty<T>({g.m, g.n});
  g.c = out.mutable_data(), g.c_row = g.n;
  g.activation = activation;
  {
    py::gil_scoped_release released;
    run(isa, g);
  }
  return out;
}

py::array linear(const py::array& x, const py::array& weight, const std::optional<py::array>& bias,
                 const std::string& activation, const char* isa) {
  const Activation after = activation_named(activation);
  return x.itemsize() == 8 ? linear_as<double>(x, weight, bias, after, isa_named(isa))
                           : linear_as<float>(x, weight, bias, after, isa_named(isa));
}

void bind_matmul(py::module_& m) {
  m.def("matmul", &matmul, py::arg("a"), py::arg("b"), py::arg("isa") = "",
        "a[..., m, k] @ b[..., k, n] of float32 or float64 with any strides; batches broadcast.");
  m.def("linear", &linear, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("activation") = "",
        py::arg("isa") = "", "activation(x[m, k] @ weight[n, k].T + bias[n]) of float32 or float64 in one sweep.");
}

const Binder binder(bind_matmul);

}  // namespace
}  // namespace ulpgrad
