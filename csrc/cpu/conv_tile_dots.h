// The sums of a weight gradient in registers. Included as conv_tile_row.h is, with kTogether besides.

constexpr int kTaps = kManyRegisters ? 12 : 6;

// taps x (vectors * lanes) results in registers while the positions of all images run; kTogether positions are one
// unit. They start from nothing and are added at the end, so that rounding errors grow with what is run through at a
// time.
template <int step, int taps, int vectors>
ULPGRAD_TARGET static void dot_tile(const ConvDots<Sum>& d, int64_t p) {
  constexpr int lanes = kLanes<Sum>;
  Vec<Sum> sums[taps][vectors] = {};
  for (int64_t i = p * vectors; i < (p + taps) * vectors; ++i) __builtin_prefetch(d.sum + i * lanes, 1);
  for (int64_t image = 0; image < d.images; ++image) {
    const Unit* x[taps];
#pragma GCC unroll 32
    for (int i = 0; i < taps; ++i) x[i] = static_cast<const Unit*>(d.x) + image * d.x_image + d.offset[p + i];
    const Unit* g_row = static_cast<const Unit*>(d.g) + image * d.g_image;
    int64_t at = 0;
    for (int64_t r = 0; r < d.rows; ++r, g_row += d.g_row, at += d.x_row) {
      const Unit* g = g_row;
      for (int64_t q = at; q < at + d.positions * step; q += kTogether * step, g += vectors * lanes) {
        Weights gradients[vectors];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) gradients[j] = load_weights(g + j * lanes);
#pragma GCC unroll 32
        for (int i = 0; i < taps; ++i) {
          const Weights value = repeat(x[i] + q);
#pragma GCC unroll 4
          for (int j = 0; j < vectors; ++j) multiply_add(sums[i][j], gradients[j], value);
        }
      }
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < taps; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      Sum* const to = d.sum + ((p + i) * vectors + j) * lanes;
      store(to, load(to) + sums[i][j]);
    }
  }
}

template <int step, int vectors, int taps = kTaps>
ULPGRAD_TARGET static void dots_of(const ConvDots<Sum>& d, int64_t p, int64_t count) {
  if (count == taps) return dot_tile<step, taps, vectors>(d, p);
  if constexpr (taps > 1) dots_of<step, vectors, taps - 1>(d, p, count);
}

template <int step>
ULPGRAD_TARGET static void dots_by(const ConvDots<Sum>& d) {
  const int64_t tiles = (d.k + kTaps - 1) / kTaps;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t p = i * d.k / tiles, count = (i + 1) * d.k / tiles - p;
    if (d.vectors == 1) {
      dots_of<step, 1>(d, p, count);
    } else {
      dots_of<step, 2>(d, p, count);
    }
  }
}

ULPGRAD_TARGET static void dots(const ConvDots<Sum>& d) {
  if (d.step == 1) return dots_by<1>(d);
  dots_by<kConvBlock>(d);
}
