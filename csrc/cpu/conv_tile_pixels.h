// Register tiles that have pixels in vectors: a few outputs x two vectors of pixels. Weights are single values, so they
// are read as they lie. Included by conv_tile_values.h.

constexpr int kOutputs = kManyRegisters ? 14 : 6;

template <int outputs>
static void pixels_tile(const ConvPixels<Sum>& r, int64_t q) {
  constexpr int lanes = kLanes<Sum>;
  const Unit* const x = r.x + q;
  Vec<Sum> sums[outputs][2];
#pragma GCC unroll 16
  for (int j = 0; j < outputs; ++j) sums[j][0] = sums[j][1] = r.start ? broadcast(r.start[j]) : Vec<Sum>{};
  for (int64_t k = 0; k < r.k; ++k) {
    const Vec<Sum> first = load(x + r.offset[k]), second = load(x + r.offset[k] + lanes);
#pragma GCC unroll 16
    for (int j = 0; j < outputs; ++j) {
      const Vec<Sum> weight = broadcast(r.w[j * kConvPixelRow + k]);
      sums[j][0] += weight * first;
      sums[j][1] += weight * second;
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < outputs; ++j) {
    Sum* const to = r.y + j * r.y_row + q;
    store(to, r.start ? sums[j][0] : load(to) + sums[j][0]);
    store(to + lanes, r.start ? sums[j][1] : load(to + lanes) + sums[j][1]);
  }
}

template <int outputs = kOutputs>
static void pixels_of(const ConvPixels<Sum>& r) {
  if (r.outputs == outputs) {
    for (int64_t q = 0; q < r.positions; q += 2 * kLanes<Sum>) pixels_tile<outputs>(r, q);
    return;
  }
  if constexpr (outputs > 1) pixels_of<outputs - 1>(r);
}

static void pixels_by(const ConvPixels<Sum>& r) { pixels_of(r); }
