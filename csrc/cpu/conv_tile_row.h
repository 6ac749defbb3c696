// Register tiles of the convolution, on units of one kind. Included by isa/conv.cpp once for each kind of unit, inside
// a namespace that defines Unit, Sum, Weights, load_weights, repeat and multiply_add; ULPGRAD_TARGET is their
// attribute.

// Sums in registers: 28 of 32 vectors, or 12 of 16.
template <int vectors>
constexpr int kPixels = (kManyRegisters ? 28 : 12) / (vectors == 1 ? 2 : vectors);

// pixels x (vectors * lanes) results in registers while segments run, `together` of them at a time.
template <int step, int pixels, int vectors>
ULPGRAD_TARGET static void tile(const ConvRow<Sum>& r, int64_t q) {
  constexpr int lanes = kLanes<Sum>;
  const Unit* const x = static_cast<const Unit*>(r.x) + q * step;
  Sum* const y = r.y + q * r.y_step;
  bool starts = r.start != nullptr;
  int64_t s = 0;
  do {
    Vec<Sum> sums[pixels][vectors];
#pragma GCC unroll 32
    for (int i = 0; i < pixels; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sums[i][j] = starts ? load(r.start + j * lanes) : Vec<Sum>{};
    }
    for (const int64_t last = s + r.together < r.segment_count ? s + r.together : r.segment_count; s < last; ++s) {
      const ConvSegment& segment = r.segments[s];
      const Unit* from = x + segment.offset;
      const Unit* const end = from + segment.units;
      const Unit* w = static_cast<const Unit*>(r.w) + segment.weight * vectors * lanes;
      for (; from < end; ++from, w += vectors * lanes) {
        Weights weights[vectors];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) weights[j] = load_weights(w + j * lanes);
#pragma GCC unroll 32
        for (int i = 0; i < pixels; ++i) {
          const Weights value = repeat(from + i * step);
#pragma GCC unroll 4
          for (int j = 0; j < vectors; ++j) multiply_add(sums[i][j], weights[j], value);
        }
      }
    }
#pragma GCC unroll 32
    for (int i = 0; i < pixels; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) {
        Sum* const to = y + i * r.y_step + j * lanes;
        store(to, starts ? sums[i][j] : load(to) + sums[i][j]);
      }
    }
    starts = false;
  } while (s < r.segment_count);
}

template <int step, int vectors, int pixels = kPixels<vectors>>
ULPGRAD_TARGET static void tile_of(const ConvRow<Sum>& r, int64_t q, int64_t count) {
  if (count == pixels) return tile<step, pixels, vectors>(r, q);
  if constexpr (pixels > 1) tile_of<step, vectors, pixels - 1>(r, q, count);
}

// A row is cut into tiles of nearly the same size.
template <int step, int vectors>
ULPGRAD_TARGET static void row_of(const ConvRow<Sum>& r) {
  const int64_t tiles = (r.positions + kPixels<vectors> - 1) / kPixels<vectors>;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t q = i * r.positions / tiles;
    tile_of<step, vectors>(r, q, (i + 1) * r.positions / tiles - q);
  }
}

template <int step>
ULPGRAD_TARGET static void row_by(const ConvRow<Sum>& r) {
  if (r.vectors == 1) return row_of<step, 1>(r);
  if (r.vectors == 2) return row_of<step, 2>(r);
  row_of<step, 4>(r);
}

ULPGRAD_TARGET static void row(const ConvRow<Sum>& r) {
  if (r.step == 1) return row_by<1>(r);
  row_by<kConvBlock>(r);
}
