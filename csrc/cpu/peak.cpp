// The roofline's two limits, for `ulpgrad ladder` and `ulpgrad doctor`: Python keeps the time.
#include "peak.h"

#include <cstring>

#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

// Floating-point operations done: a multiply-add counts as two.
double peak_fma(int64_t rounds, int threads, bool is_double, const char* isa) {
  const PeakTable& run = table<PeakTable>(isa_named(isa));
  if (rounds < 0 || threads < 1) throw py::value_error("peak_fma: expected rounds >= 0 and threads >= 1");
  {
    py::gil_scoped_release free;
    parallel_tasks(threads, threads_for(threads, 1) > 1 ? threads : 1, [&](int64_t) {
      [[maybe_unused]] volatile double kept =
          is_double ? run.fma64(rounds, 0.5, 1.0) : static_cast<double>(run.fma32(rounds, 0.5f, 1.0f));
    });
  }
  return 2.0 * static_cast<double>(rounds) * threads * (is_double ? run.chains64 : run.chains32);
}

// Multiply-adds of codes of 8 or 16 bits into 32, times two. Without VNNI bytes are multiplied as words are.
double peak_dot(int64_t rounds, int threads, int bits) {
  const PeakTable& run = table<PeakTable>(best_isa());
  if (rounds < 0 || threads < 1) throw py::value_error("peak_dot: expected rounds >= 0 and threads >= 1");
  if (bits != 8 && bits != 16) throw py::value_error("peak_dot: expected bits = 8 or 16");
  const bool vnni = has_avx512_vnni();
  const auto loop = !vnni ? run.dot16 : bits == 8 ? run.vnni8 : run.vnni16;
  const int chains = !vnni ? run.chains16 : bits == 8 ? run.vnni_chains8 : run.vnni_chains16;
  {
    py::gil_scoped_release free;
    parallel_tasks(threads, threads_for(threads, 1) > 1 ? threads : 1,
                   [&](int64_t) { [[maybe_unused]] volatile int32_t kept = loop(rounds, 0x00010001, 0x00010001); });
  }
  return 2.0 * static_cast<double>(rounds) * threads * chains;
}

void peak_copy(py::array& out, const py::array& x, int threads) {
  const float* from = contiguous<float>(x, "x");
  float* to = writable<float>(out, "out");
  if (out.size() != x.size()) throw py::value_error("peak_copy: sizes differ");
  if (threads < 1) throw py::value_error("peak_copy: expected threads >= 1");
  const int64_t size = x.size(), each = (size + threads - 1) / threads;
  py::gil_scoped_release free;
  parallel_tasks(threads, threads_for(threads, 1) > 1 ? threads : 1, [&](int64_t i) {
    const int64_t begin = i * each, count = begin + each < size ? each : size - begin;
    if (count > 0) std::memmove(to + begin, from + begin, static_cast<size_t>(count) * sizeof(float));
  });
}

void bind_peak(py::module_& m) {
  m.def("peak_fma", &peak_fma, py::arg("rounds"), py::arg("threads"), py::arg("is_double"), py::arg("isa") = "",
        "Run multiply-adds from registers on each thread; returns the floating-point operations done.");
  m.def("peak_dot", &peak_dot, py::arg("rounds"), py::arg("threads"), py::arg("bits"),
        "Run multiply-adds of integers of 8 or 16 bits from registers on each thread; returns the operations done.");
  m.def("peak_copy", &peak_copy, py::arg("out"), py::arg("x"), py::arg("threads"), "Copy x into out, in parts.");
}

const Binder binder(bind_peak);

}  // namespace
}  // namespace ulpgrad
