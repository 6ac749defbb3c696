// The roofline's limits, for `ulpgrad doctor --ceilings` and `ulpgrad ladder`: Python keeps the time.
#include "peak.h"

#include "bind.h"
#include "cpu_features.h"
#include "threads.h"

namespace ulpgrad {
namespace {

// Runs body(i) for each of `threads` threads, also where more are asked for than kernels use.
template <typename Body>
void on_threads(int threads, const Body& body) {
  py::gil_scoped_release free;
  parallel_tasks(threads, threads_for(threads, 1) > 1 ? threads : 1, body);
}

const PeakLoop& loop_of(const std::string& unit, Isa isa) {
  const PeakTable& t = table<PeakTable>(isa);
  const bool avx512 = isa == Isa::avx512;
  const bool dots = avx512 ? has_avx512_vnni() : isa == Isa::avx2 ? has_avx_vnni() : has_neon_dotprod();
  static constexpr PeakLoop none = {nullptr, 0, ""};
  if (unit == "float32") return t.float32;
  if (unit == "float64") return t.float64;
  if (unit == "int16") return dots && t.dot16.run ? t.dot16 : t.int16;
  if (unit == "int8") return dots && t.dot8.run ? t.dot8 : t.int16;  // bytes are multiplied as words are
  if (unit == "bfloat16") return avx512 && has_avx512_bf16() ? t.dot_bfloat16 : none;
  throw py::value_error("unit='" + unit + "': expected float32, float64, bfloat16, int16 or int8");
}

int64_t peak_arithmetic(const std::string& unit, int64_t rounds, int threads, const char* isa) {
  const PeakLoop& loop = loop_of(unit, isa_named(isa));
  if (rounds < 0 || threads < 1) throw py::value_error("peak_arithmetic: expected rounds >= 0 and threads >= 1");
  if (loop.run) on_threads(threads, [&](int64_t) { loop.run(rounds); });
  return rounds * threads * loop.operations;
}

const char* peak_instruction(const std::string& unit, const char* isa) {
  return loop_of(unit, isa_named(isa)).instruction;
}

// Each thread sweeps over a part of the buffer of its own, in which the arrays lie one after the other, shifted against
// each other so that they do not fall on the same places of the caches.
int64_t peak_memory(const std::string& kind, py::array& buffer, int64_t passes, int threads, bool past,
                    const char* isa) {
  const SweepTable& t = table<SweepTable>(isa_named(isa));
  float* const begin = writable<float>(buffer, "buffer");
  const int64_t arrays = kind == "triad" ? 3 : kind == "copy" ? 2 : 1, shift = 5 * 16;
  if (kind != "read" && kind != "write" && kind != "copy" && kind != "triad")
    throw py::value_error("kind='" + kind + "': expected read, write, copy or triad");
  if (passes < 0 || threads < 1) throw py::value_error("peak_memory: expected passes >= 0 and threads >= 1");
  if (reinterpret_cast<uintptr_t>(begin) % 64)
    throw py::value_error("peak_memory: expected a buffer aligned to 64 bytes");
  const int64_t part = buffer.size() / threads / 16 * 16;
  const int64_t n = (part - arrays * shift) / arrays / kSweepStep * kSweepStep;
  if (n <= 0) throw py::value_error("peak_memory: the buffer is too small for so many threads");
  past = past && t.write_past;
  on_threads(threads, [&](int64_t i) {
    float *const out = begin + i * part, *const x = out + n + shift, *const y = x + n + shift;
    if (arrays == 3) return (past ? t.triad_past : t.triad)(out, x, y, n, passes);
    if (arrays == 2) return (past ? t.copy_past : t.copy)(out, x, n, passes);
    if (kind == "read") return t.read(out, n, passes);
    (past ? t.write_past : t.write)(out, n, passes);
  });
  return passes * threads * arrays * n * static_cast<int64_t>(sizeof(float));
}

void bind_peak(py::module_& m) {
  m.def("peak_arithmetic", &peak_arithmetic, py::arg("unit"), py::arg("rounds"), py::arg("threads"),
        py::arg("isa") = "",
        "Run operations of a unit from registers on each thread; how many were done, 0 if there is no such unit.");
  m.def("peak_instruction", &peak_instruction, py::arg("unit"), py::arg("isa") = "",
        "The instruction that peak_arithmetic runs for a unit.");
  m.def("peak_memory", &peak_memory, py::arg("kind"), py::arg("buffer"), py::arg("passes"), py::arg("threads"),
        py::arg("past") = false, py::arg("isa") = "",
        "Sweep over a float32 buffer on each thread: read, write, copy, or triad (a = b + 3 c); past: with stores that "
        "go "
        "past the caches. Returns the bytes read and written.");
}

const Binder binder(bind_peak);

}  // namespace
}  // namespace ulpgrad
