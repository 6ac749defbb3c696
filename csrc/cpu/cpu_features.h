// The names that ULPGRAD_ISA knows on this architecture, and AArch64's extensions.
#pragma once

#include "isa.h"

namespace ulpgrad {

// An extension belongs to a level, which is compiled for as a whole: its kernels use it through target attributes on
// single functions, and ask for it when they run.
struct IsaName {
  const char* name;
  bool is_level;
  bool is_usable;  // the CPU and the operating system have it, and ULPGRAD_ISA allows it
};

// In rising order: ULPGRAD_ISA allows the name it is set to and those before it.
int isa_count();
IsaName isa_at(int i);

// Whether AArch64's dot products of bytes (SDOT, UDOT) may be used, on top of Isa::portable, which has NEON there.
bool has_neon_dotprod();

}  // namespace ulpgrad
