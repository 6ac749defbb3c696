// Pooling of images whose channels lie side by side: rows of results are shared out among threads, and of the gradient
// of maxima, whose places may be anywhere, images and blocks of channels.
#include "pool_pixels.h"

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>

#include "conv.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kGrain = 1 << 15;  // values looked at that are worth a thread

const PixelKernels<float>& kernels(Isa isa, float) { return table<PixelTable>(isa).f32; }
const PixelKernels<double>& kernels(Isa isa, double) { return table<PixelTable>(isa).f64; }
const PixelKernels<Bfloat16>& kernels(Isa isa, Bfloat16) { return table<PixelTable>(isa).b16; }
const PixelKernels<Float16>& kernels(Isa isa, Float16) { return table<PixelTable>(isa).f16; }

int64_t grain_of(int64_t values) { return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, values)); }

// What each window along an axis sees of the image.
std::vector<PoolSpan> windows(const PoolGeometry& p, int axis) {
  const int64_t count = axis ? p.columns : p.rows, size = axis ? p.width : p.height;
  std::vector<PoolSpan> all(count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = i * p.stride[axis] - p.padding[axis];
    all[i] = {std::max<int64_t>(begin, 0), std::min(begin + p.kernel[axis], size)};
  }
  return all;
}

// The windows along an axis that see each place of the image.
std::vector<PoolSpan> seen_by(const PoolGeometry& p, int axis) {
  const int64_t count = axis ? p.columns : p.rows, size = axis ? p.width : p.height, stride = p.stride[axis];
  std::vector<PoolSpan> all(size);
  for (int64_t i = 0; i < size; ++i) {
    const int64_t last = i + p.padding[axis], first = last - p.kernel[axis] + 1;
    all[i] = {first > 0 ? (first + stride - 1) / stride : 0, std::min(last / stride + 1, count)};
  }
  return all;
}

std::vector<int32_t> sizes(const std::vector<PoolSpan>& spans) {
  std::vector<int32_t> all;
  for (const PoolSpan& s : spans) all.push_back(static_cast<int32_t>(s.end - s.begin));
  return all;
}

}  // namespace

template <typename S>
void max_pool_pixels(const PixelImages<S>& x, const PoolGeometry& p, S* y, int64_t* places, Isa isa) {
  const int64_t line = p.columns * x.channels;
  parallel_for(x.images * p.rows, grain_of(line * p.kernel[0] * p.kernel[1]), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t top = i % p.rows * p.stride[0] - p.padding[0], step = p.dilation[0];
      const int64_t first = top < 0 ? (-top + step - 1) / step : 0;
      const int64_t last = top < p.height ? std::min((p.height - top + step - 1) / step, p.kernel[0]) : 0;
      kernels(isa, S()).maxima({x.data + i / p.rows * x.image,
                                x.row,
                                x.column,
                                x.channels,
                                top,
                                -p.padding[1],
                                {first, last},
                                p.kernel[1],
                                p.stride[1],
                                step,
                                p.dilation[1],
                                p.width,
                                p.columns,
                                y + i * line,
                                places + i * line,
                                x.channels});
    }
  });
}

template <typename S>
void avg_pool_pixels(const PixelImages<S>& x, const PoolGeometry& p, S* y, Isa isa) {
  const std::vector<PoolSpan> rows = windows(p, 0), columns = windows(p, 1);
  const int64_t line = p.columns * x.channels, divisor = p.include_padding ? p.kernel[0] * p.kernel[1] : 0;
  parallel_for(x.images * p.rows, grain_of(line * p.kernel[0] * p.kernel[1]), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels(isa, S()).means({x.data + i / p.rows * x.image, x.row, x.column, x.channels, rows[i % p.rows],
                               columns.data(), p.columns, divisor, nullptr, nullptr, y + i * line, x.channels});
    }
  });
}

template <typename S>
void avg_pool_pixels_gradient(const PixelImages<S>& g, const PoolGeometry& p, S* dx, Isa isa) {
  const std::vector<PoolSpan> rows = seen_by(p, 0), columns = seen_by(p, 1);
  const std::vector<int32_t> row_parts = sizes(windows(p, 0)), column_parts = sizes(windows(p, 1));
  const bool uneven = !p.include_padding && (p.padding[0] || p.padding[1]);
  const int64_t line = p.width * g.channels;
  parallel_for(g.images * p.height, grain_of(line), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      kernels(isa, S()).means({g.data + i / p.height * g.image, g.row, g.column, g.channels, rows[i % p.height],
                               columns.data(), p.width, p.kernel[0] * p.kernel[1], uneven ? row_parts.data() : nullptr,
                               column_parts.data(), dx + i * line, g.channels});
    }
  });
}

// Adds gradients to the places where the largest values were, [count][g_step] to [size][step]; whether all are inside.
template <typename T>
bool scatter(const T* g, int64_t g_step, const int64_t* places, int64_t places_step, int64_t count, int64_t channels,
             T* to, int64_t step, int64_t size) {
  bool inside = true;
  if (channels == step) {
    std::fill(to, to + size * step, T(0));
  } else {
    for (int64_t at = 0; at < size; ++at) std::fill(to + at * step, to + at * step + channels, T(0));
  }
  for (int64_t q = 0; q < count; ++q, g += g_step, places += places_step) {
    for (int64_t c = 0; c < channels; ++c) {
      const uint64_t place = static_cast<uint64_t>(places[c]);
      if (place < static_cast<uint64_t>(size)) {
        to[static_cast<int64_t>(place) * step + c] += g[c];
      } else {
        inside = false;
      }
    }
  }
  return inside;
}

// The same for 16-bit floats, of kConvBlock channels at most: sums are made in float32 and rounded once.
template <typename S>
bool scatter_wide(const S* g, int64_t g_step, const int64_t* places, int64_t count, int64_t channels, S* to,
                  int64_t size, const ConvMoves& moves) {
  constexpr bool is_bfloat = std::is_same_v<S, Bfloat16>;
  float* const sums =
      static_cast<float*>(scratch(Slot::caller, static_cast<size_t>((size + count) * kConvBlock) * sizeof(float)));
  float* const wide = sums + size * kConvBlock;
  if constexpr (is_bfloat) {
    moves.in_b16(g, 1, g_step, channels, count, wide, kConvBlock, kConvBlock, 0);
  } else {
    moves.in_f16(g, 1, g_step, channels, count, wide, kConvBlock, kConvBlock, 0);
  }
  const bool inside = scatter(wide, kConvBlock, places, g_step, count, channels, sums, kConvBlock, size);
  if constexpr (is_bfloat) {
    moves.out_b16(sums, kConvBlock, channels, size, to, 1, g_step);
  } else {
    moves.out_f16(sums, kConvBlock, channels, size, to, 1, g_step);
  }
  return inside;
}

template <typename S>
bool max_pool_pixels_gradient(const PixelImages<S>& g, const int64_t* places, int64_t count, int64_t size, S* dx,
                              Isa isa) {
  const int64_t channels = g.channels, threads = threads_for(g.images * channels * (size + count), kGrain);
  // Whole images are written one line after the other, but sums of 16-bit floats have to stay in the cache.
  const int64_t each = std::is_same_v<S, Wide<S>> && g.images >= threads ? channels : kConvBlock;
  const int64_t blocks = (channels + each - 1) / each;
  std::atomic<bool> inside{true};
  parallel_for(g.images * blocks, grain_of((size + count) * each), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / blocks, first = i % blocks * each, some = std::min(each, channels - first);
      const int64_t from = image * count * channels + first;
      S* const to = dx + image * size * channels + first;
      bool all;
      if constexpr (std::is_same_v<S, Wide<S>>) {
        all = scatter(g.data + from, channels, places + from, channels, count, some, to, channels, size);
      } else {
        all = scatter_wide(g.data + from, channels, places + from, count, some, to, size, table<ConvMoves>(isa));
      }
      if (!all) inside = false;
    }
  });
  return inside;
}

#define ULPGRAD_POOL_PIXELS(S)                                                                  \
  template void max_pool_pixels(const PixelImages<S>&, const PoolGeometry&, S*, int64_t*, Isa); \
  template void avg_pool_pixels(const PixelImages<S>&, const PoolGeometry&, S*, Isa);           \
  template void avg_pool_pixels_gradient(const PixelImages<S>&, const PoolGeometry&, S*, Isa);  \
  template bool max_pool_pixels_gradient(const PixelImages<S>&, const int64_t*, int64_t, int64_t, S*, Isa);
ULPGRAD_POOL_PIXELS(float)
ULPGRAD_POOL_PIXELS(double)
ULPGRAD_POOL_PIXELS(Bfloat16)
ULPGRAD_POOL_PIXELS(Float16)
#undef ULPGRAD_POOL_PIXELS

}  // namespace ulpgrad
