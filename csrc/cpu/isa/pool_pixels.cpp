// Windows of pixels, vectors of channels: sums and maxima stay in registers while a window runs.
#include "pool_pixels.h"

#include <type_traits>

#include "halves_simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// `vectors` vectors of channels; of a single one perhaps only the first `some` lanes.
template <int vectors, typename S>
ULPGRAD_INLINE Vec<Wide<S>> load_channels(const S* p, int v, int64_t some) {
  if (vectors == 1 && some < kLanes<Wide<S>>) return load_wide_some(p, some);
  return load_wide(p + v * kLanes<Wide<S>>);
}
template <int vectors, typename S>
ULPGRAD_INLINE void store_channels(S* p, int v, int64_t some, Vec<Wide<S>> x) {
  if (vectors == 1 && some < kLanes<Wide<S>>) return store_narrow_some(p, x, some);
  store_narrow(p + v * kLanes<Wide<S>>, x);
}

// Calls body(vectors, first channel, lanes of the last vector) until all channels are done: four vectors at a time,
// then single ones.
template <typename S, typename Body>
ULPGRAD_INLINE void for_channels(int64_t channels, const Body& body) {
  constexpr int64_t lanes = kLanes<Wide<S>>;
  int64_t c = 0;
  for (; c + 4 * lanes <= channels; c += 4 * lanes) body(std::integral_constant<int, 4>(), c, lanes);
  for (; c + lanes <= channels; c += lanes) body(std::integral_constant<int, 1>(), c, lanes);
  if (c < channels) body(std::integral_constant<int, 1>(), c, channels - c);
}

template <int vectors, bool parts, typename S>
ULPGRAD_INLINE void mean(const PixelMeans<S>& m, PoolSpan columns, int64_t c, int64_t some, Wide<S> divisor, S* y) {
  using T = Wide<S>;
  Vec<T> sums[vectors] = {};
  for (int64_t r = m.rows.begin; r < m.rows.end; ++r) {
    const S* from = m.x + r * m.row + columns.begin * m.column + c;
    for (int64_t q = columns.begin; q < columns.end; ++q, from += m.column) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        Vec<T> value = load_channels<vectors>(from, v, some);
        if constexpr (parts) value /= broadcast(static_cast<T>(m.row_parts[r] * m.column_parts[q]));
        sums[v] += value;
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) {
    if constexpr (!parts) sums[v] /= broadcast(divisor);
    store_channels<vectors>(y + c, v, some, sums[v]);
  }
}

template <bool parts, typename S>
static void means_of(const PixelMeans<S>& m) {
  S* y = m.y;
  for (int64_t q = 0; q < m.count; ++q, y += m.y_column) {
    const PoolSpan columns = m.columns[q];
    const int64_t inside = (m.rows.end - m.rows.begin) * (columns.end - columns.begin);
    const Wide<S> divisor = static_cast<Wide<S>>(m.divisor ? m.divisor : inside);
    for_channels<S>(m.channels, [&](auto vectors, int64_t c, int64_t some) {
      mean<decltype(vectors)::value, parts>(m, columns, c, some, divisor, y);
    });
  }
}

template <typename S>
static void means(const PixelMeans<S>& m) {
  m.row_parts ? means_of<true>(m) : means_of<false>(m);
}

// The taps on the image of a window that starts at `start`.
ULPGRAD_INLINE PoolSpan taps_inside(int64_t start, int64_t step, int64_t count, int64_t size) {
  const int64_t begin = start < 0 ? (-start + step - 1) / step : 0;
  const int64_t end = start < size ? (size - start + step - 1) / step : 0;
  return {begin, end < count ? end : count};
}

template <int vectors, typename S>
ULPGRAD_INLINE void maximum(const PixelMaxima<S>& m, int64_t left, PoolSpan taps, int64_t c, int64_t some, S* y,
                            int64_t* places) {
  using T = Wide<S>;
  using Place = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;  // images have fewer than 2^31 values
  constexpr int lanes = kLanes<T>;
  Vec<T> best[vectors] = {};
  Vec<Place> place[vectors];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) place[v] = broadcast(Place(-1));
  for (int64_t i = m.taps.begin; i < m.taps.end; ++i) {
    const int64_t row = m.top + i * m.dilation_rows;
    for (int64_t j = taps.begin; j < taps.end; ++j) {
      const int64_t column = left + j * m.dilation;
      const S* const from = m.x + row * m.row + column * m.column + c;
      const Vec<Place> here = broadcast(static_cast<Place>(row * m.width + column));
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        const Vec<T> value = load_channels<vectors>(from, v, some);
        const Vec<Place> take = (value > best[v]) | ((value != value) & (best[v] == best[v])) | (place[v] < 0);
        best[v] = take ? value : best[v];
        place[v] = take ? here : place[v];
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) {
    store_channels<vectors>(y + c, v, some, best[v]);
    using Places = typename Bytes<int64_t, lanes* static_cast<int>(sizeof(int64_t))>::type;
    const Places wide = __builtin_convertvector(place[v], Places);
    std::memcpy(places + c + v * lanes, &wide, static_cast<size_t>(vectors == 1 ? some : lanes) * sizeof(int64_t));
  }
}

template <typename S>
static void maxima(const PixelMaxima<S>& m) {
  S* y = m.y;
  int64_t* places = m.places;
  for (int64_t q = 0; q < m.count; ++q, y += m.y_column, places += m.y_column) {
    const int64_t left = m.left + q * m.stride;
    const PoolSpan taps = taps_inside(left, m.dilation, m.kernel, m.width);
    for_channels<S>(m.channels, [&](auto vectors, int64_t c, int64_t some) {
      maximum<decltype(vectors)::value>(m, left, taps, c, some, y, places);
    });
  }
}

extern const PixelTable pixel_table = {{means<float>, maxima<float>},
                                       {means<double>, maxima<double>},
                                       {means<Bfloat16>, maxima<Bfloat16>},
                                       {means<Float16>, maxima<Float16>}};

}  // namespace ulpgrad::ULPGRAD_ISA
