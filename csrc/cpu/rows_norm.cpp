// Normalisation: checks, rows or channels over threads, and the parameters' gradients added up chunk by chunk, in
// order.
#include "rows_norm.h"

#include <algorithm>
#include <memory>

#include "bind_floats.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 14;  // values, about 10 us: less does not pay for a thread
constexpr int64_t kMaxChunks = 64;   // parts of a parameter's gradient; their number depends on the shape alone
constexpr int64_t kMinRows = 16;     // rows a part is made from, at least

int64_t grain(int64_t values) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, values)); }

template <typename T>
py::array rounded(const Wide<T>* from, int64_t n, Isa isa) {
  py::array out = empty_of<T>({n});
  round_into(from, data_of<T>(out), n, isa);
  return out;
}

template <typename T>
py::tuple forward(const py::array& x, const py::object& weight, const py::object& bias, double eps, bool centered,
                  Isa isa) {
  const int64_t rows = x.shape(0), n = x.shape(1);
  py::array y = empty_of<T>({rows, n}), mean = empty_of<Wide<T>>({centered ? rows : 0}),
            rstd = empty_of<Wide<T>>({rows});
  const RowNorm<T> a{values<T>(x, "x"),
                     optional_values<T>(weight, n, "weight"),
                     optional_values<T>(bias, n, "bias"),
                     data_of<T>(y),
                     centered ? data_of<Wide<T>>(mean) : nullptr,
                     data_of<Wide<T>>(rstd),
                     n,
                     eps};
  {
    const auto run = of<T>(table<NormTable>(isa)).forward;
    const py::gil_scoped_release free;
    parallel_for(rows, grain(n), [&](int64_t begin, int64_t end) { run(a, begin, end); });
  }
  if (!centered) return py::make_tuple(y, rstd);
  return py::make_tuple(y, mean, rstd);
}

template <typename T>
py::tuple gradient(const py::array& g, const py::array& x, const py::object& weight, const py::object& mean,
                   const py::array& rstd, Isa isa) {
  using Sum = Wide<T>;
  const int64_t rows = x.shape(0), n = x.shape(1);
  const bool centered = !mean.is_none();
  py::array dx = empty_of<T>({rows, n});
  const RowNormGradient<T> a{values<T>(g, {rows, n}, "g"),
                             values<T>(x, "x"),
                             optional_values<T>(weight, n, "weight"),
                             optional_values<Sum>(mean, rows, "mean"),
                             values<Sum>(rstd, {rows}, "rstd"),
                             data_of<T>(dx),
                             nullptr,
                             nullptr,
                             n};
  const int64_t step = std::max(kMinRows, (rows + kMaxChunks - 1) / kMaxChunks);
  const int64_t chunks = std::max<int64_t>(1, (rows + step - 1) / step);
  // dweight and dbias of each chunk, one after the other; those of all chunks are added to the first.
  const std::unique_ptr<Sum[]> parts(new Sum[static_cast<size_t>(2 * chunks * n)]);
  {
    const auto run = of<T>(table<NormTable>(isa)).gradient;
    const py::gil_scoped_release free;
    parallel_for(chunks, grain(step * n), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        RowNormGradient<T> part = a;
        part.dweight = &parts[static_cast<size_t>(2 * k * n)];
        part.dbias = part.dweight + n;
        run(part, k * step, std::min(rows, (k + 1) * step));
      }
    });
    parallel_for(centered ? 2 * n : n, grain(chunks), [&](int64_t begin, int64_t end) {
      for (int64_t k = 1; k < chunks; ++k)
        for (int64_t j = begin; j < end; ++j)
          parts[static_cast<size_t>(j)] += parts[static_cast<size_t>(2 * k * n + j)];
    });
  }
  const py::array dweight = rounded<T>(parts.get(), n, isa);
  if (!centered) return py::make_tuple(dx, dweight);
  return py::make_tuple(dx, dweight, rounded<T>(parts.get() + n, n, isa));
}

template <typename T, typename Run>
void over_channels(const ChannelNorm<T>& a, const Run& run) {
  // Side by side, a quarter of the channels is taken together, in whole vectors: long rows of memory, and work for
  // threads.
  const int64_t width = a.s == 1 ? std::min((a.c / 4 + 16) / 16 * 16, kChannelsTogether) : 1;
  const py::gil_scoped_release free;
  parallel_for((a.c + width - 1) / width, grain(width * a.n * a.s), [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) run(a, tile * width, std::min(a.c, (tile + 1) * width));
  });
}

template <typename T>
py::tuple channels(const py::array& x, const py::object& weight, const py::object& bias, double eps, Isa isa) {
  const int64_t n = x.shape(0), c = x.shape(1), s = x.shape(2);
  py::array y = empty_of<T>({n, c, s}), mean = empty_of<Wide<T>>({c}), rstd = empty_of<Wide<T>>({c});
  const ChannelNorm<T> a{nullptr,
                         values<T>(x, "x"),
                         optional_values<T>(weight, c, "weight"),
                         optional_values<T>(bias, c, "bias"),
                         data_of<T>(y),
                         data_of<Wide<T>>(mean),
                         data_of<Wide<T>>(rstd),
                         nullptr,
                         nullptr,
                         n,
                         c,
                         s,
                         eps};
  over_channels(a, of<T>(table<NormTable>(isa)).channels);
  return py::make_tuple(y, mean, rstd);
}

template <typename T>
py::tuple channel_gradient(const py::array& g, const py::array& x, const py::object& weight, const py::array& mean,
                           const py::array& rstd, Isa isa) {
  using Sum = Wide<T>;
  const int64_t n = x.shape(0), c = x.shape(1), s = x.shape(2);
  py::array dx = empty_of<T>({n, c, s});
  const std::unique_ptr<Sum[]> sums(new Sum[static_cast<size_t>(2 * c)]);
  const ChannelNorm<T> a{values<T>(g, {n, c, s}, "g"),
                         values<T>(x, "x"),
                         optional_values<T>(weight, c, "weight"),
                         nullptr,
                         data_of<T>(dx),
                         const_cast<Sum*>(values<Sum>(mean, {c}, "mean")),
                         const_cast<Sum*>(values<Sum>(rstd, {c}, "rstd")),
                         sums.get(),
                         sums.get() + c,
                         n,
                         c,
                         s,
                         0};
  over_channels(a, of<T>(table<NormTable>(isa)).channel_gradient);
  return py::make_tuple(dx, rounded<T>(sums.get(), c, isa), rounded<T>(sums.get() + c, c, isa));
}

py::tuple row_norm(const py::array& x, const py::object& weight, const py::object& bias, double eps, bool centered,
                   const char* isa) {
  expect_ndim(x, 2, "x");
  return by_type(x, "x",
                 [&](auto type) { return forward<decltype(type)>(x, weight, bias, eps, centered, isa_named(isa)); });
}

py::tuple row_norm_gradient(const py::array& g, const py::array& x, const py::object& weight, const py::object& mean,
                            const py::array& rstd, const char* isa) {
  expect_ndim(x, 2, "x");
  return by_type(x, "x", [&](auto type) { return gradient<decltype(type)>(g, x, weight, mean, rstd, isa_named(isa)); });
}

py::tuple batch_norm(const py::array& x, const py::object& weight, const py::object& bias, double eps,
                     const char* isa) {
  expect_ndim(x, 3, "x");
  return by_type(x, "x", [&](auto type) { return channels<decltype(type)>(x, weight, bias, eps, isa_named(isa)); });
}

py::tuple batch_norm_gradient(const py::array& g, const py::array& x, const py::object& weight, const py::array& mean,
                              const py::array& rstd, const char* isa) {
  expect_ndim(x, 3, "x");
  return by_type(x, "x",
                 [&](auto type) { return channel_gradient<decltype(type)>(g, x, weight, mean, rstd, isa_named(isa)); });
}

// Moves running[c] towards what of(c) gives, in double precision; None has nothing to move.
template <typename Of>
void move(const py::object& given, int64_t channels, double momentum, const Of& of) {
  if (given.is_none()) return;
  py::array running = py::cast<py::array>(given);
  expect_shape(running, {channels}, "running");
  const auto all = [&](auto* to) {
    for (int64_t c = 0; c < channels; ++c)
      to[c] = static_cast<std::remove_reference_t<decltype(*to)>>(to[c] * (1 - momentum) + of(c) * momentum);
  };
  if (py::isinstance<py::array_t<double>>(running)) {
    all(writable<double>(running, "running"));
  } else {
    all(writable<float>(running, "running"));
  }
}

template <typename T>
bool move_by(const py::object& running_mean, const py::object& running_var, const py::array& mean,
             const py::array& rstd, double eps, double drowned, double momentum, double unbiased) {
  const int64_t channels = rstd.size();
  const T *means = values<T>(mean, {channels}, "mean"), *deviations = values<T>(rstd, {channels}, "rstd");
  const auto variance = [&](int64_t c) { return 1.0 / (double{deviations[c]} * double{deviations[c]}) - eps; };
  if (!running_var.is_none())
    for (int64_t c = 0; c < channels; ++c)
      if (variance(c) < drowned) return false;
  move(running_mean, channels, momentum, [&](int64_t c) { return double{means[c]}; });
  move(running_var, channels, momentum, [&](int64_t c) { return variance(c) * unbiased; });
  return true;
}

bool move_statistics(const py::object& running_mean, const py::object& running_var, const py::array& mean,
                     const py::array& rstd, double eps, double drowned, double momentum, double unbiased) {
  const auto run = py::isinstance<py::array_t<double>>(rstd) ? move_by<double> : move_by<float>;
  return run(running_mean, running_var, mean, rstd, eps, drowned, momentum, unbiased);
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
  m.def("move_statistics", &move_statistics, arg("running_mean"), arg("running_var"), arg("mean"), arg("rstd"),
        arg("eps"), arg("drowned"), arg("momentum"), arg("unbiased"),
        "Moves running statistics, float32 or float64 or None, in place towards mean and 1 / rstd^2 - eps, times "
        "unbiased. False, and nothing is moved, where such a variance is below `drowned`.");
}

const Binder binder(bind_norm);

}  // namespace
}  // namespace ulpgrad
