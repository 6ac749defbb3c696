// Normalisation: checks, rows or channels over threads, and the parameters' gradients added up chunk by chunk, in
// order.
#include "rows_norm.h"

#include <algorithm>
#include <memory>

#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 14;  // values, about 10 us: less does not pay for a thread
constexpr int64_t kMaxChunks = 64;   // parts of a parameter's gradient; their number depends on the shape alone
constexpr int64_t kMinRows = 16;     // rows a part is made from, at least

int64_t grain(int64_t values) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, values)); }

bool is_double(const py::array& a) { return py::isinstance<py::array_t<double>>(a); }

// A vector of `size` values, or null for None.
template <typename T>
const T* optional(const py::object& a, int64_t size, const char* name) {
  if (a.is_none()) return nullptr;
  const py::array vector = py::cast<py::array>(a);
  expect_shape(vector, {size}, name);
  return contiguous<T>(vector, name);
}

template <typename T>
const T* shaped(const py::array& a, std::initializer_list<int64_t> shape, const char* name) {
  expect_shape(a, shape, name);
  return contiguous<T>(a, name);
}

template <typename T>
py::tuple forward_of(const NormFunctions<T>& f, const py::array& x, const py::object& weight, const py::object& bias,
                     double eps, bool centered) {
  expect_ndim(x, 2, "x");
  const int64_t rows = x.shape(0), n = x.shape(1);
  py::array_t<T> y = empty<T>({rows, n}), mean = empty<T>({centered ? rows : 0}), rstd = empty<T>({rows});
  const RowNorm<T> a{contiguous<T>(x, "x"),
                     optional<T>(weight, n, "weight"),
                     optional<T>(bias, n, "bias"),
                     y.mutable_data(),
                     centered ? mean.mutable_data() : nullptr,
                     rstd.mutable_data(),
                     n,
                     eps};
  {
    const py::gil_scoped_release free;
    parallel_for(rows, grain(n), [&](int64_t begin, int64_t end) { f.forward(a, begin, end); });
  }
  if (!centered) return py::make_tuple(y, rstd);
  return py::make_tuple(y, mean, rstd);
}

template <typename T>
py::tuple gradient_of(const NormFunctions<T>& f, const py::array& g, const py::array& x, const py::object& weight,
                      const py::object& mean, const py::array& rstd) {
  expect_ndim(x, 2, "x");
  const int64_t rows = x.shape(0), n = x.shape(1);
  const bool centered = !mean.is_none();
  py::array_t<T> dx = empty<T>({rows, n}), dweight = empty<T>({n}), dbias = empty<T>({centered ? n : 0});
  const RowNormGradient<T> a{shaped<T>(g, {rows, n}, "g"),
                             contiguous<T>(x, "x"),
                             optional<T>(weight, n, "weight"),
                             optional<T>(mean, rows, "mean"),
                             shaped<T>(rstd, {rows}, "rstd"),
                             dx.mutable_data(),
                             dweight.mutable_data(),
                             centered ? dbias.mutable_data() : nullptr,
                             n};
  {
    const py::gil_scoped_release free;
    const int64_t step = std::max(kMinRows, (rows + kMaxChunks - 1) / kMaxChunks);
    const int64_t chunks = (rows + step - 1) / step;
    const std::unique_ptr<T[]> parts(new T[static_cast<size_t>(2 * chunks * n)]);
    parallel_for(chunks, grain(step * n), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        RowNormGradient<T> part = a;
        part.dweight = &parts[2 * k * n];
        part.dbias = part.dweight + n;
        f.gradient(part, k * step, std::min(rows, (k + 1) * step));
      }
    });
    parallel_for(n, grain(chunks), [&](int64_t begin, int64_t end) {
      for (T* to : {a.dweight, a.dbias}) {
        if (!to) continue;
        const T* from = &parts[to == a.dbias ? n : 0];
        for (int64_t j = begin; j < end; ++j) to[j] = 0;
        for (int64_t k = 0; k < chunks; ++k)
          for (int64_t j = begin; j < end; ++j) to[j] += from[2 * k * n + j];
      }
    });
  }
  if (!centered) return py::make_tuple(dx, dweight);
  return py::make_tuple(dx, dweight, dbias);
}

template <typename T, typename Run>
void over_channels(const ChannelNorm<T>& a, const Run& run) {
  constexpr int64_t together = 16;  // channels side by side are taken a vector at a time
  const int64_t width = a.s == 1 ? together : 1;
  const py::gil_scoped_release free;
  parallel_for((a.c + width - 1) / width, grain(width * a.n * a.s),
               [&](int64_t begin, int64_t end) { run(a, begin * width, std::min(a.c, end * width)); });
}

template <typename T>
py::tuple channels_of(const NormFunctions<T>& f, const py::array& x, const py::object& weight, const py::object& bias,
                      double eps) {
  expect_ndim(x, 3, "x");
  const int64_t n = x.shape(0), c = x.shape(1), s = x.shape(2);
  py::array_t<T> y = empty<T>({n, c, s}), mean = empty<T>({c}), rstd = empty<T>({c});
  const ChannelNorm<T> a{nullptr,
                         contiguous<T>(x, "x"),
                         optional<T>(weight, c, "weight"),
                         optional<T>(bias, c, "bias"),
                         y.mutable_data(),
                         mean.mutable_data(),
                         rstd.mutable_data(),
                         nullptr,
                         nullptr,
                         n,
                         c,
                         s,
                         eps};
  over_channels(a, f.channels);
  return py::make_tuple(y, mean, rstd);
}

template <typename T>
py::tuple channel_gradient_of(const NormFunctions<T>& f, const py::array& g, const py::array& x,
                              const py::object& weight, const py::array& mean, const py::array& rstd) {
  expect_ndim(x, 3, "x");
  const int64_t n = x.shape(0), c = x.shape(1), s = x.shape(2);
  py::array_t<T> dx = empty<T>({n, c, s}), dweight = empty<T>({c}), dbias = empty<T>({c});
  const ChannelNorm<T> a{shaped<T>(g, {n, c, s}, "g"),
                         contiguous<T>(x, "x"),
                         optional<T>(weight, c, "weight"),
                         nullptr,
                         dx.mutable_data(),
                         const_cast<T*>(shaped<T>(mean, {c}, "mean")),
                         const_cast<T*>(shaped<T>(rstd, {c}, "rstd")),
                         dweight.mutable_data(),
                         dbias.mutable_data(),
                         n,
                         c,
                         s,
                         0};
  over_channels(a, f.channel_gradient);
  return py::make_tuple(dx, dweight, dbias);
}

py::tuple row_norm(const py::array& x, const py::object& weight, const py::object& bias, double eps, bool centered,
                   const char* isa) {
  const NormTable& t = table<NormTable>(isa_named(isa));
  return is_double(x) ? forward_of(t.f64, x, weight, bias, eps, centered)
                      : forward_of(t.f32, x, weight, bias, eps, centered);
}

py::tuple row_norm_gradient(const py::array& g, const py::array& x, const py::object& weight, const py::object& mean,
                            const py::array& rstd, const char* isa) {
  const NormTable& t = table<NormTable>(isa_named(isa));
  return is_double(x) ? gradient_of(t.f64, g, x, weight, mean, rstd) : gradient_of(t.f32, g, x, weight, mean, rstd);
}

py::tuple batch_norm(const py::array& x, const py::object& weight, const py::object& bias, double eps,
                     const char* isa) {
  const NormTable& t = table<NormTable>(isa_named(isa));
  return is_double(x) ? channels_of(t.f64, x, weight, bias, eps) : channels_of(t.f32, x, weight, bias, eps);
}

py::tuple batch_norm_gradient(const py::array& g, const py::array& x, const py::object& weight, const py::array& mean,
                              const py::array& rstd, const char* isa) {
  const NormTable& t = table<NormTable>(isa_named(isa));
  return is_double(x) ? channel_gradient_of(t.f64, g, x, weight, mean, rstd)
                      : channel_gradient_of(t.f32, g, x, weight, mean, rstd);
}

void bind_norm(py::module_& m) {
  using py::arg;
  m.def("row_norm", &row_norm, arg("x"), arg("weight"), arg("bias"), arg("eps"), arg("centered"), arg("isa") = "",
        "Layer norm of x[rows, n]: (y, mean, rstd); not centered, RMS norm: (y, rstd).");
  m.def("row_norm_gradient", &row_norm_gradient, arg("g"), arg("x"), arg("weight"), arg("mean"), arg("rstd"),
        arg("isa") = "", "Gradients of row_norm: (dx, dweight, dbias), or (dx, dweight) where mean is None.");
  m.def("batch_norm", &batch_norm, arg("x"), arg("weight"), arg("bias"), arg("eps"), arg("isa") = "",
        "x[n, c, s] normalised over n and s: (y, mean, rstd).");
  m.def("batch_norm_gradient", &batch_norm_gradient, arg("g"), arg("x"), arg("weight"), arg("mean"), arg("rstd"),
        arg("isa") = "", "Gradients of batch_norm: (dx, dweight, dbias).");
}

const Binder binder(bind_norm);

}  // namespace
}  // namespace ulpgrad
