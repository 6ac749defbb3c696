// What the CPU and the operating system can do, asked once.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "isa.h"

#ifdef ULPGRAD_X86
#include <cpuid.h>
#endif

namespace ulpgrad {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512"};

#ifdef ULPGRAD_X86
bool has(unsigned bits, unsigned mask) { return (bits & mask) == mask; }

// Register state that the operating system saves on a context switch (XCR0).
unsigned saved_state() {
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

Isa detect() {
  unsigned a, b, c, d;
  constexpr unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, fma | osxsave | avx | f16c)) return Isa::portable;
  const unsigned state = saved_state();
  constexpr unsigned ymm = 0x6, zmm = 0xE6;
  if (!has(state, ymm) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return Isa::portable;
  constexpr unsigned avx2 = 1u << 5, f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
  if (!has(b, avx2)) return Isa::portable;
  return has(state, zmm) && has(b, f | dq | bw | vl) ? Isa::avx512 : Isa::avx2;
}

bool detect_vnni() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && has(c, 1u << 11);
}

bool detect_bf16() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, 1u << 5);
}

bool detect_avx_vnni() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, 1u << 4);
}
#else
Isa detect() { return Isa::portable; }
bool detect_vnni() { return false; }
bool detect_bf16() { return false; }
bool detect_avx_vnni() { return false; }
#endif

Isa parse(const std::string& name, const char* what) {
  for (int i = 0; i < 3; ++i)
    if (name == kNames[i]) return static_cast<Isa>(i);
  throw std::invalid_argument(std::string(what) + "='" + name + "': expected portable, avx2 or avx512");
}

Isa capped() {
  const char* limit = std::getenv("ULPGRAD_ISA");
  const Isa found = detect();
  if (!limit || !*limit) return found;
  const Isa wanted = parse(limit, "ULPGRAD_ISA");
  return wanted < found ? wanted : found;
}

}  // namespace

Isa best_isa() {
  static const Isa best = capped();
  return best;
}

Isa isa_named(const char* name) {
  if (!*name) return best_isa();
  const Isa wanted = parse(name, "isa");
  if (wanted > best_isa()) {
    throw std::invalid_argument(std::string("isa='") + name + "': this CPU, or ULPGRAD_ISA, allows no more than " +
                                isa_name(best_isa()));
  }
  return wanted;
}

bool has_avx512_vnni() {
  static const bool has_it = best_isa() == Isa::avx512 && detect_vnni();
  return has_it;
}

bool has_avx512_bf16() {
  static const bool has_it = best_isa() == Isa::avx512 && detect_bf16();
  return has_it;
}

bool has_avx_vnni() {
  static const bool has_it = best_isa() >= Isa::avx2 && detect_avx_vnni();
  return has_it;
}

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

}  // namespace ulpgrad
