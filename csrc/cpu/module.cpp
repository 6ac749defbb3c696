// ulpgrad._native: the C++ kernels. Each family binds itself (bind.h); isa.h says how to add one.
#include "bind.h"
#include "cpu_features.h"
#include "threads.h"

namespace ulpgrad {
namespace {

py::list isa_names() {
  py::list names;
  for (int i = 0; i < isa_count(); ++i) names.append(isa_at(i).name);
  return names;
}

py::list usable(bool levels) {
  py::list names;
  for (int i = 0; i < isa_count(); ++i)
    if (const IsaName known = isa_at(i); known.is_usable && known.is_level == levels) names.append(known.name);
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
  m.def("isa_names", &isa_names, "What ULPGRAD_ISA may be on this architecture, in rising order.");
  m.def("cpu_isas", [] { return usable(true); }, "Instruction sets that kernels may use here, in rising order.");
  m.def("cpu_extensions", [] { return usable(false); }, "Extensions of cpu_isas() that kernels may use here.");
  m.def("build_info", &build_info, "Compiler, flags, instruction sets compiled, and whether OpenMP is in.");
  m.def("set_num_threads", &set_threads, py::arg("n"), "Threads that kernels use at most.");
  m.def("get_num_threads", &num_threads, "Threads that kernels use at most.");
  for (const Binder::Bind bind : Binder::all()) bind(m);
}
