// The loops that stay in registers, compiled for the instruction set as it is (plain) and with its extension for dot
// products of bytes (vnni): AVX-512 VNNI, AVX-VNNI, or AArch64's SDOT and UDOT.
#pragma once

#include "integer_fold.h"
#include "integer_pack.h"
#include "integer_vector.h"

namespace ulpgrad::ULPGRAD_ISA {

// A tile of sums fills the registers, beside a unit of each column and one of A.
constexpr int kRows = 6;
template <Units kind>
constexpr int kVectors = kind != Units::split && kManyRegisters   ? 4
                         : kind != Units::split || kManyRegisters ? 2
                                                                  : 1;
constexpr int kMostWidth = kVectors<Units::pairs> * kLanes<int32_t>;
constexpr int kShortRows = 4;

// The rows of a tile: unit u of row i stands at + i * row + u * unit, in bytes.
struct TileRows {
  const char* at;
  int64_t row, unit, units;
  const int32_t* starts;  // what the sums of each row start from
  const int32_t* tails;   // one more unit of each row, or null
};

// Sums along k of `lanes` lanes that pass by, `x_step` bytes apart, times a few that stay, which are padded with zeros
// to whole vectors.
struct AlongSums {
  const int8_t *x, *y;
  int64_t x_step, y_step, lanes, still, bytes;
  int32_t flip;           // of the units that pass by
  const int32_t* starts;  // of the lanes that stay
  int32_t* c;
  int64_t c_lane, c_still;
};

ULPGRAD_INLINE int32_t unit_at(const char* p) {
  int32_t unit;
  __builtin_memcpy(&unit, p, sizeof unit);
  return unit;
}

using DotTile = void (*)(const TileRows& from, const int32_t* b, int32_t* sums, int64_t step, bool adds);
template <typename T>
using ShortTile = void (*)(const IntegerPlan& plan, int64_t chunks, int64_t units, int64_t last, const int32_t* a,
                           const int32_t* b, T* to, T* over);

namespace plain {
#define ULPGRAD_TARGET
#define ULPGRAD_VNNI 0
#include "integer_tile.h"
#include "integer_tile_thin.h"
#undef ULPGRAD_TARGET
#undef ULPGRAD_VNNI
}  // namespace plain

#if ULPGRAD_ISA_LEVEL == 2
#define ULPGRAD_TARGET __attribute__((target("avx512vnni")))
#elif ULPGRAD_ISA_LEVEL == 1
#define ULPGRAD_TARGET __attribute__((target("avxvnni")))
#elif defined(__aarch64__)
#define ULPGRAD_TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

#ifdef ULPGRAD_TARGET
#define ULPGRAD_DOTS_BYTES 1
namespace vnni {
#define ULPGRAD_VNNI 1
#include "integer_tile.h"
#include "integer_tile_thin.h"
#undef ULPGRAD_TARGET
#undef ULPGRAD_VNNI
}  // namespace vnni
#else
#define ULPGRAD_DOTS_BYTES 0
namespace vnni = plain;
#endif

}  // namespace ulpgrad::ULPGRAD_ISA
