// Tiles on units that are single values, multiplied as what they are summed in. Included as conv_tile_row.h is, in a
// namespace that defines Unit alone.

using Sum = Unit;
using Weights = Vec<Unit>;
constexpr int kTogether = 1;
ULPGRAD_INLINE Weights load_weights(const Unit* p) { return load(p); }
ULPGRAD_INLINE Weights repeat(const Unit* p) { return broadcast(*p); }
ULPGRAD_INLINE void multiply_add(Weights& sum, const Weights& w, const Weights& x) { sum += w * x; }
#include "conv_tile_dots.h"
#include "conv_tile_pixels.h"
#include "conv_tile_row.h"
