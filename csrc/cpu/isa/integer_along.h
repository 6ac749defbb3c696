// Products with so few rows or columns that packing the other side would take longer than multiplying it: that side
// passes by once, as it stands, if its codes lie side by side along k.
#pragma once

#include "integer_rows.h"
#include "scratch.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kMostStill = 8;  // lanes
constexpr int64_t kLeastPassing =
    96;  // bytes of a lane that passes, for each that stays: sums across vectors cost as much

ULPGRAD_INLINE int64_t code_size(Codes codes) { return codes == Codes::int16 ? 2 : 1; }

// Whether A (or else B) may pass by `still` lanes of the other side.
ULPGRAD_INLINE bool may_pass(const IntegerGemm& g, bool is_a, int64_t still) {
  const int64_t size = int64_t{sizeof(int32_t)} / per_unit(g.plan);
  return adds_only(g.plan) && still <= kMostStill && (is_a ? g.a_col : g.b_row) == 1 && code_size(g.a_codes) == size &&
         code_size(g.b_codes) == size && g.k * size >= kLeastPassing * still;
}

// Copies a lane whose codes are `stride` apart, fills up the last vector, and returns the sum of the codes.
template <typename T>
static int32_t copy_lane(const void* lane, int64_t stride, int64_t k, int64_t bytes, int8_t* to) {
  const T* from = static_cast<const T*>(lane);
  T* out = reinterpret_cast<T*>(to);
  uint32_t sum = 0;
  for (int64_t p = 0; p < k; ++p) out[p] = from[p * stride], sum += static_cast<uint32_t>(from[p * stride]);
  for (int64_t p = k * int64_t{sizeof(T)}; p < bytes; ++p) to[p] = 0;
  return static_cast<int32_t>(sum);
}

// Rows [i0, i1) and columns [j0, j1) of C: A passes by, or B.
static void multiply_along(const IntegerGemm& g, bool a_passes, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  const int64_t size = code_size(g.a_codes), row = g.a_row * size, col = g.b_col * size;
  const Codes passing = a_passes ? g.a_codes : g.b_codes, staying = a_passes ? g.b_codes : g.a_codes;
  const bool moved = g.plan.units == Units::bytes && (passing == staying) == kMixedBytes;
  const int32_t factor = !moved ? 0 : passing == Codes::uint8 ? 128 : -128;
  const int8_t *a = static_cast<const int8_t*>(g.a) + i0 * row, *b = static_cast<const int8_t*>(g.b) + j0 * col;
  AlongSums s;
  s.bytes = g.k * size, s.y_step = round_up(s.bytes, kVectorBytes),
  s.flip = moved ? static_cast<int32_t>(0x80808080) : 0;
  s.lanes = a_passes ? i1 - i0 : j1 - j0, s.still = a_passes ? j1 - j0 : i1 - i0;
  s.x = a_passes ? a : b, s.x_step = a_passes ? row : col;
  s.c = static_cast<int32_t*>(g.c) + i0 * g.c_row + j0;
  s.c_lane = a_passes ? g.c_row : 1, s.c_still = a_passes ? 1 : g.c_row;
  const int8_t* from = a_passes ? b : a;
  const int64_t lane = a_passes ? col : row, stride = a_passes ? g.b_row : g.a_col;
  int32_t starts[kMostStill];
  int8_t* held = static_cast<int8_t*>(scratch(Slot::gemm_a, static_cast<size_t>(s.still * s.y_step)));
  const auto copy = staying == Codes::int8    ? copy_lane<int8_t>
                    : staying == Codes::uint8 ? copy_lane<uint8_t>
                                              : copy_lane<int16_t>;
  for (int64_t l = 0; l < s.still; ++l) {
    const uint32_t sum = static_cast<uint32_t>(copy(from + l * lane, stride, g.k, s.y_step, held + l * s.y_step));
    starts[l] = static_cast<int32_t>(sum * static_cast<uint32_t>(factor));
  }
  s.y = held, s.starts = starts;
  const bool swapped = (passing == Codes::uint8) != moved;
  return g.vnni ? vnni::along(g.plan.units, swapped, s) : plain::along(g.plan.units, swapped, s);
}

}  // namespace ulpgrad::ULPGRAD_ISA
