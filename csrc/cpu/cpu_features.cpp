// What the CPU and the operating system can do, asked once, and what ULPGRAD_ISA leaves of it.
#include "cpu_features.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#ifdef ULPGRAD_X86
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace ulpgrad {
namespace {

#ifdef ULPGRAD_X86
struct Leaf {
  unsigned a = 0, b = 0, c = 0, d = 0;
  Leaf(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &a, &b, &c, &d); }
};

bool has(unsigned bits, unsigned mask) { return (bits & mask) == mask; }

// Whether the operating system saves these registers on a context switch (XCR0).
bool saves(unsigned mask) {
  if (!has(Leaf(1, 0).c, 1u << 27)) return false;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return has(low, mask);
}

bool finds_avx2() {
  constexpr unsigned fma = 1u << 12, avx = 1u << 28, f16c = 1u << 29, avx2 = 1u << 5, ymm = 0x6;
  return saves(ymm) && has(Leaf(1, 0).c, fma | avx | f16c) && has(Leaf(7, 0).b, avx2);
}

bool finds_avx512() {
  constexpr unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, zmm = 0xE6;
  return finds_avx2() && saves(zmm) && has(Leaf(7, 0).b, f | dq | bw | vl);
}

bool finds_avx_vnni() { return finds_avx2() && has(Leaf(7, 1).a, 1u << 4); }
bool finds_avx512_vnni() { return finds_avx512() && has(Leaf(7, 0).c, 1u << 11); }
bool finds_avx512_bf16() { return finds_avx512() && has(Leaf(7, 1).a, 1u << 5); }
#elif defined(__aarch64__)
bool finds_neon_dotprod() {
#ifdef __linux__
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__APPLE__)
  return true;  // Apple's processors since the A11
#else
  return false;
#endif
}
#endif

bool always() { return true; }

struct Known {
  const char* name;
  Isa level;  // what kernels for it are compiled for, before target attributes
  bool (*finds)();
  bool is_level;  // compiled for as a whole; the others are extensions of a level
};

// In rising order: ULPGRAD_ISA allows those up to its name.
constexpr Known kKnown[] = {
    {"portable", Isa::portable, always, true},
#ifdef ULPGRAD_X86
    {"avx2", Isa::avx2, finds_avx2, true},
    {"avx_vnni", Isa::avx2, finds_avx_vnni, false},
    {"avx512", Isa::avx512, finds_avx512, true},
    {"avx512_vnni", Isa::avx512, finds_avx512_vnni, false},
    {"avx512_bf16", Isa::avx512, finds_avx512_bf16, false},
#elif defined(__aarch64__)
    {"neon", Isa::portable, always, false},
    {"neon_dotprod", Isa::portable, finds_neon_dotprod, false},
#endif
};
constexpr int kCount = sizeof(kKnown) / sizeof(*kKnown);

// Throws std::invalid_argument, with the names that there are, if this is none of them.
int index_of(const std::string& name, const char* what, bool levels_only) {
  std::string expected;
  for (int i = 0; i < kCount; ++i) {
    if (levels_only && !kKnown[i].is_level) continue;
    if (name == kKnown[i].name) return i;
    expected += std::string(expected.empty() ? "" : ", ") + kKnown[i].name;
  }
  throw std::invalid_argument(std::string(what) + "='" + name + "': expected one of " + expected);
}

// Of each name: whether the machine has it and ULPGRAD_ISA allows it.
struct Usable {
  bool is[kCount] = {};
  Isa best = Isa::portable;
  Usable() {
    const char* limit = std::getenv("ULPGRAD_ISA");
    const int last = limit && *limit ? index_of(limit, "ULPGRAD_ISA", false) : kCount - 1;
    for (int i = 0; i <= last; ++i) {
      is[i] = kKnown[i].finds();
      if (is[i] && kKnown[i].is_level) best = kKnown[i].level;
    }
  }
};

const Usable& usable() {
  static const Usable found;
  return found;
}

bool can(const char* name) { return usable().is[index_of(name, "isa", false)]; }

}  // namespace

int isa_count() { return kCount; }

IsaName isa_at(int i) { return {kKnown[i].name, kKnown[i].is_level, usable().is[i]}; }

Isa best_isa() { return usable().best; }

Isa isa_named(const char* name) {
  if (!*name) return best_isa();
  const int wanted = index_of(name, "isa", true);
  if (!usable().is[wanted]) {
    throw std::invalid_argument(std::string("isa='") + name + "': this CPU, or ULPGRAD_ISA, allows no more than " +
                                isa_name(best_isa()));
  }
  return kKnown[wanted].level;
}

const char* isa_name(Isa isa) {
  int i = 0;
  while (!(kKnown[i].is_level && kKnown[i].level == isa)) ++i;
  return kKnown[i].name;
}

#ifdef ULPGRAD_X86
bool has_avx_vnni() {
  static const bool has_it = can("avx_vnni");
  return has_it;
}

bool has_avx512_vnni() {
  static const bool has_it = can("avx512_vnni");
  return has_it;
}

bool has_avx512_bf16() {
  static const bool has_it = can("avx512_bf16");
  return has_it;
}
#else
bool has_avx_vnni() { return false; }
bool has_avx512_vnni() { return false; }
bool has_avx512_bf16() { return false; }
#endif

bool has_neon_dotprod() {
#ifdef __aarch64__
  static const bool has_it = can("neon_dotprod");
  return has_it;
#else
  return false;
#endif
}

}  // namespace ulpgrad
