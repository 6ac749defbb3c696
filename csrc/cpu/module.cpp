// ulpgrad._native: the C++ kernels. Each family binds itself (bind.h); isa.h says how to add one.
#include "bind.h"
#include "threads.h"

namespace ulpgrad {
namespace {

py::list usable_isas() {
  py::list names;
  for (int i = 0; i <= static_cast<int>(best_isa()); ++i) names.append(isa_name(static_cast<Isa>(i)));
  return names;
}

py::list usable_extensions() {
  py::list names;
  if (has_avx_vnni()) names.append("avx_vnni");
  if (has_avx512_vnni()) names.append("avx512_vnni");
  if (has_avx512_bf16()) names.append("avx512_bf16");
  return names;
}

py::dict build_info() {
  py::dict info;
  info["compiler"] = __VERSION__;
  info["flags"] = ULPGRAD_FLAGS;
#ifdef ULPGRAD_X86
  info["isas"] = py::make_tuple("portable", "avx2", "avx512");
#else
  info["isas"] = py::make_tuple("portable");
#endif
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  return info;
}

void set_threads(int n) {
  if (n < 1) throw py::value_error("set_num_threads: expected at least 1, got " + std::to_string(n));
  set_num_threads(n);
}

}  // namespace
}  // namespace ulpgrad

PYBIND11_MODULE(_native, m) {
  using namespace ulpgrad;
  m.doc() = "ulpgrad's C++ kernels.";
  best_isa();  // a bad ULPGRAD_ISA is reported on import
  m.def("cpu_isas", &usable_isas, "Instruction sets that kernels may use here, in rising order.");
  m.def("cpu_extensions", &usable_extensions, "Instruction sets beyond cpu_isas() that kernels may use here.");
  m.def("build_info", &build_info, "Compiler, flags, instruction sets compiled, and whether OpenMP is in.");
  m.def("set_num_threads", &set_threads, py::arg("n"), "Threads that kernels use at most.");
  m.def("get_num_threads", &num_threads, "Threads that kernels use at most.");
  for (const Binder::Bind bind : Binder::all()) bind(m);
}
