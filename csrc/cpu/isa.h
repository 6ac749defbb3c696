// Instruction sets, and how one of several versions of a kernel is chosen at run time.
//
// How to add a family `foo` (no list needs editing):
//   foo.h        struct FooTable { void (*run)(const float* x, float* y, int64_t n); };
//                ULPGRAD_TABLE(FooTable, foo_table)               // inside namespace ulpgrad
//   isa/foo.cpp  compiled once per instruction set, with ULPGRAD_ISA defined as portable, avx2 or avx512 and
//                ULPGRAD_ISA_LEVEL as 0, 1 or 2:
//                  #include "foo.h"
//                  namespace ulpgrad::ULPGRAD_ISA {
//                  static void run(const float* x, float* y, int64_t n) { ... }
//                  extern const FooTable foo_table = {run};
//                  }
//   foo.cpp      baseline code: checks, allocates, releases the GIL (in a block of its own that ends before any Python
//                object is copied or returned), calls table<FooTable>(isa).run(...):
//                  #include "bind.h"
//                  static void bind_foo(py::module_& m) { m.def("foo", &foo, py::arg("x"), py::arg("isa") = ""); }
//                  static const ulpgrad::Binder binder(bind_foo);
//
// Rules for files in isa/:
//   - Everything stands in namespace ulpgrad::ULPGRAD_ISA and is `static` or a template over its own types. An inline
//     function shared with baseline code would be merged by the linker, perhaps into its AVX-512 copy: so no
//     std::vector, std::function, std::sort there; memory comes from the caller or from scratch.h. Small shared helpers
//     in headers are marked ULPGRAD_INLINE.
//   - No global that needs a constructor: it would run on import, on every CPU. Tables are constants.
//   - Nothing throws, but for scratch.h where memory runs out. Checks belong to the baseline file.
#pragma once

#include <cstdint>

#define ULPGRAD_INLINE static inline __attribute__((always_inline))

namespace ulpgrad {

enum class Isa : int { portable = 0, avx2 = 1, avx512 = 2 };

// The best instruction set that the CPU, the operating system and ULPGRAD_ISA allow.
Isa best_isa();

// The instruction set of that name, or the best for "". Throws std::invalid_argument if it is unknown or not usable.
Isa isa_named(const char* name);

const char* isa_name(Isa isa);

// Whether AVX-512 VNNI (dot products of bytes and of pairs) may be used, on top of Isa::avx512.
bool has_avx512_vnni();

// Whether AVX-512 BF16 (dot products of pairs of bfloat16) may be used, on top of Isa::avx512.
bool has_avx512_bf16();

// Whether AVX-VNNI (VNNI's instructions on 32-byte vectors) may be used, on top of Isa::avx2.
bool has_avx_vnni();

template <typename Table>
struct Versions;

// The version of a function table for an instruction set.
template <typename Table>
const Table& table(Isa isa = best_isa()) {
  return *Versions<Table>::of[static_cast<int>(isa)];
}

}  // namespace ulpgrad

#ifdef ULPGRAD_X86
#define ULPGRAD_TABLE(Type, name)                                                      \
  namespace portable {                                                                 \
  extern const Type name;                                                              \
  }                                                                                    \
  namespace avx2 {                                                                     \
  extern const Type name;                                                              \
  }                                                                                    \
  namespace avx512 {                                                                   \
  extern const Type name;                                                              \
  }                                                                                    \
  template <>                                                                          \
  struct Versions<Type> {                                                              \
    static constexpr const Type* of[] = {&portable::name, &avx2::name, &avx512::name}; \
  };
#else
#define ULPGRAD_TABLE(Type, name)                          \
  namespace portable {                                     \
  extern const Type name;                                  \
  }                                                        \
  template <>                                              \
  struct Versions<Type> {                                  \
    static constexpr const Type* of[] = {&portable::name}; \
  };
#endif
