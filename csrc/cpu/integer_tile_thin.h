// Sums without packed panels, where one side is too thin to pay for packing the other. No include guard: see
// integer_tile.h.

#if ULPGRAD_VNNI
// sums[i] = factor * the sum of row i's bytes, which lie side by side; they are unsigned where `swapped`.
template <bool swapped>
ULPGRAD_TARGET static void row_sums(const TileRows& from, int64_t rows, int64_t bytes, int32_t factor,
                                    int32_t* __restrict sums) {
  const Ints ones = broadcast(0x01010101);
  const int64_t whole = bytes / kVectorBytes * kVectorBytes;
  for (int64_t i = 0; i < rows; ++i) {
    const int8_t* x = reinterpret_cast<const int8_t*>(from.at) + i * from.row;
    Ints total[2] = {};
    int64_t at = 0;
    for (; at + 2 * kVectorBytes <= whole; at += 2 * kVectorBytes)
      for (int h = 0; h < 2; ++h) total[h] = dot_bytes<swapped>(total[h], (Ints)load(x + at + h * kVectorBytes), ones);
    if (at < whole) total[0] = dot_bytes<swapped>(total[0], (Ints)load(x + at), ones);
    if (whole < bytes) total[1] = dot_bytes<swapped>(total[1], (Ints)load_some(x + whole, bytes - whole), ones);
    sums[i] = factor * wrapping_sum(total[0] + total[1]);
  }
}

// The same of packed rows; it writes a whole number of vectors.
template <bool swapped>
ULPGRAD_TARGET static void packed_sums(const int32_t* __restrict units, int64_t count, int64_t width, int32_t factor,
                                       int32_t* __restrict sums) {
  const Ints ones = broadcast(0x01010101);
  for (int64_t l = 0; l < width; l += kLanes<int32_t>) {
    Ints total{};
    for (int64_t u = 0; u < count; ++u) total = dot_bytes<swapped>(total, load(units + u * width + l), ones);
    store(sums + l, total * factor);
  }
}
#endif

// Products along k: `lanes` lanes from i on that pass by, with `still` ones from j on that stay.
template <Units kind, bool swapped, int lanes, int still>
ULPGRAD_TARGET static void along_tile(const AlongSums& s, int64_t i, int64_t j) {
  constexpr int vector = kLanes<int32_t>;
  const int8_t *x = s.x + i * s.x_step, *y = s.y + j * s.y_step;
  const Ints flip = broadcast(s.flip);
  const int64_t whole = s.bytes / kVectorBytes * kVectorBytes;
  Ints total[lanes * still];
#pragma GCC unroll 16
  for (int t = 0; t < lanes * still; ++t) total[t] = Ints{};
  for (int64_t at = 0; at < whole; at += kVectorBytes) {
#pragma GCC unroll 16
    for (int t = 0; t < lanes * still; ++t) {
      const int8_t* p = x + t / still * s.x_step + at;
      if (t % still == 0) __builtin_prefetch(p + lanes * s.x_step);
      const Ints held = (Ints)load(y + t % still * s.y_step + at);
      total[t] = dot<kind, swapped>(total[t], flip ^ (Ints)load(p), held);
    }
  }
  alignas(kVectorBytes) int32_t sums[lanes * still * vector];
#pragma GCC unroll 16
  for (int t = 0; t < lanes * still; ++t) store(sums + t * vector, total[t]);
  for (int l = 0; l < lanes; ++l) {
    Ints last{};
    if (whole < s.bytes) last = flip ^ (Ints)load_some(x + l * s.x_step + whole, s.bytes - whole);
    for (int q = 0; q < still; ++q) {
      Ints all = load(sums + (l * still + q) * vector);
      if (whole < s.bytes) all = dot<kind, swapped>(all, last, (Ints)load(y + q * s.y_step + whole));
      s.c[(i + l) * s.c_lane + (j + q) * s.c_still] = wrapping_sum(all, s.starts[j + q]);
    }
  }
}

template <Units kind, bool swapped, int lanes>
static void along_lanes(const AlongSums& s, int64_t i) {
  int64_t j = 0;
  for (; j + 4 <= s.still; j += 4) along_tile<kind, swapped, lanes, 4>(s, i, j);
  for (; j + 2 <= s.still; j += 2) along_tile<kind, swapped, lanes, 2>(s, i, j);
  if (j < s.still) along_tile<kind, swapped, lanes, 1>(s, i, j);
}

template <Units kind, bool swapped>
static void along(const AlongSums& s) {
  int64_t i = 0;
  for (; i + 4 <= s.lanes; i += 4) along_lanes<kind, swapped, 4>(s, i);
  for (; i < s.lanes; ++i) along_lanes<kind, swapped, 1>(s, i);
}

// `swapped`: the bytes that pass by are, or become, the unsigned ones.
static void along([[maybe_unused]] Units kind, [[maybe_unused]] bool swapped, const AlongSums& s) {
#if ULPGRAD_VNNI
  if (kind == Units::bytes) return swapped ? along<Units::bytes, true>(s) : along<Units::bytes, false>(s);
#endif
  along<Units::pairs, false>(s);
}
