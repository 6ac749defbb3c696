// How an integer product is computed: the narrowest lanes and the fastest instructions that keep every bit.
#pragma once

#include <string>

#include "bind.h"
#include "integer.h"

namespace ulpgrad {

// An accumulator of `bits` bits: each chunk of products is summed exactly, shifted right by `shift` (left by -shift)
// with rounding, limited to the range, and added, with the range looked after again.
struct Accumulator {
  int bits, shift;
  std::string overflow, rounding;  // "wrap", "saturate", "raise"; a name from formats.rounding
  int64_t chunk;                   // 0: all of k
};

// The instruction set of that name, and whether its extension for dot products of bytes goes with it ("avx512_vnni",
// "avx_vnni", "neon_dotprod"; "": the best).
struct IntegerIsa {
  explicit IntegerIsa(const std::string& name);
  Isa isa;
  bool vnni;
};

// Largest magnitude of any code of this type, and of those in an array.
int64_t largest(Codes codes);
int64_t largest(const py::array& x, Codes codes);

// The type of an array's codes; TypeError if it is none of them.
Codes codes_of(const py::array& x, const char* name);

// Raises ValueError for settings that do not exist.
void check(const Accumulator& accumulator);

// The plan for magnitudes up to a_largest and b_largest.
IntegerPlan make_plan(const Accumulator& accumulator, int64_t k, Codes a, Codes b, int64_t a_largest, int64_t b_largest,
                      bool vnni);

// Fills in g.plan, and looks at the values where their types alone ask for a slower way. `b_least`: a magnitude that
// b's codes may have beside those in the array.
void plan_product(IntegerGemm& g, const Accumulator& accumulator, const py::array& a, const py::array& b,
                  int64_t b_least = 0);

// One result, in 128 bits. `overflow`: the first k of the first chunk that did not fit, or -1.
struct IntegerResult {
  int64_t value, overflow = -1;
};
IntegerResult integer_result(const IntegerGemm& g, const Accumulator& accumulator, int64_t row, int64_t column);

// The whole product, by the plan.
void multiply(const IntegerGemm& g, const Accumulator& accumulator, Isa isa);

}  // namespace ulpgrad
