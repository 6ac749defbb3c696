// Integer convolution of single channels: rows of an image are copied once, in 16 bits and with their padding, and each
// output is a sum of pairs of neighbours in them. Where channels lie side by side, eight of them are turned at a time.
#include "integer_conv_depthwise.h"

#include <algorithm>
#include <cstring>

#include "integer_conv.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kPlaneBytes = 1 << 16;  // of the rows that are copied at a time
constexpr int64_t kGrain = 1 << 18;       // products that make one more thread worth its start
constexpr int64_t kSplitTaps = 256;       // products of an int16 and a byte whose sum 32 bits hold
constexpr int64_t kTurned = 8;            // channels that are copied, and perhaps turned, at a time

// Which bits of a value are multiplied: all, or one of its bytes.
enum class Part { whole, high, low };

template <Part part>
int16_t part_of(int16_t x) {
  return part == Part::high ? x >> 8 : part == Part::low ? x & 255 : x;
}

typedef int16_t Eight __attribute__((vector_size(16)));

// A square of values, its rows and columns exchanged.
void turn(Eight (&rows)[kTurned]) {
  constexpr Eight low = {0, 8, 1, 9, 2, 10, 3, 11}, high = {4, 12, 5, 13, 6, 14, 7, 15};
  for (int step = 0; step < 3; ++step) {
    Eight next[kTurned];
    for (int i = 0; i < 4; ++i) {
      next[2 * i] = __builtin_shuffle(rows[i], rows[i + 4], low);
      next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + 4], high);
    }
    std::copy(next, next + kTurned, rows);
  }
}

// to[c * plane + q] = from[c * channel + q * column]
template <Part part, typename T>
void read_row(const T* from, int64_t channel, int64_t column, int64_t channels, int64_t count, int16_t* to,
              int64_t plane) {
  int64_t first = 0;
  if (channel == 1 && channels == kTurned) {
    typedef T Codes __attribute__((vector_size(kTurned * sizeof(T))));
    for (; first + kTurned <= count; first += kTurned) {
      Eight square[kTurned];
      for (int i = 0; i < kTurned; ++i) {
        Codes codes;
        std::memcpy(&codes, from + (first + i) * column, sizeof codes);
        square[i] = __builtin_convertvector(codes, Eight);
        if constexpr (part != Part::whole) square[i] = part == Part::high ? square[i] >> 8 : square[i] & 255;
      }
      turn(square);
      for (int i = 0; i < kTurned; ++i) std::memcpy(to + i * plane + first, &square[i], sizeof square[i]);
    }
  }
  for (int64_t c = 0; c < channels; ++c) {
    const T* const x = from + c * channel;
    if (column == 1) {
      for (int64_t q = first; q < count; ++q) to[c * plane + q] = part_of<part>(x[q]);
    } else {
      for (int64_t q = first; q < count; ++q) to[c * plane + q] = part_of<part>(x[q * column]);
    }
  }
}

// Whether the exact sums need both bytes of x apart; with `possible`, whether 32 bits hold those of the parts.
struct Depth {
  bool split, possible;
  explicit Depth(const IntegerConv& job) {
    const IntegerPlan& plan = job.gemm.plan;
    const bool bytes = job.gemm.a_codes != Codes::int16 && job.gemm.b_codes != Codes::int16;
    split = plan.wide && plan.units == Units::split;
    possible = !plan.wide || job.w.taps() <= (bytes || split ? kSplitTaps : plan.segment);
  }
};

struct Depthwise : IntegerConv {
  bool split, flat;
  int64_t width, rows, plane, channels;  // of the copied rows; rows of outputs, values and channels at a time
  std::vector<int32_t> weights;          // in pairs
  std::vector<int64_t> offsets;
  const PairSumsTable& sums;

  explicit Depthwise(const IntegerConv& job)
      : IntegerConv(job), split(Depth(job).split), sums(table<PairSumsTable>(job.isa)) {
    width = (w.out_cols - 1) * w.stride.second + w.kernel_cols;
    channels = std::min(kTurned, groups);
    const int64_t fitting = kPlaneBytes / static_cast<int64_t>(sizeof(int16_t)) / channels / width;
    rows = std::clamp<int64_t>((fitting - w.kernel_rows) / w.stride.first + 1, 1, w.out_rows);
    plane = ((rows - 1) * w.stride.first + w.kernel_rows) * width + kPairsBeyond;
    // Short rows are computed in one go, with the places between them.
    const int64_t whole = (w.out_cols + sums.together - 1) / sums.together * sums.together;
    flat = w.stride == Pair{1, 1} && whole * 4 > width * 5;
    for (int64_t i = 0; i < w.kernel_rows; ++i) {
      for (int64_t j = 0; j < w.kernel_cols; j += 2) offsets.push_back(i * width + j);
    }
    const auto code = [&](int64_t at) -> int32_t {
      if (gemm.a_codes == Codes::int8) return reinterpret_cast<const int8_t*>(weight)[at];
      if (gemm.a_codes == Codes::uint8) return reinterpret_cast<const uint8_t*>(weight)[at];
      return reinterpret_cast<const int16_t*>(weight)[at];
    };
    for (int64_t row = 0; row < groups * gemm.m * w.kernel_rows; ++row) {
      for (int64_t j = 0; j < w.kernel_cols; j += 2) {
        const uint32_t first = static_cast<uint32_t>(code(row * w.kernel_cols + j)) & 0xFFFF;
        const uint32_t second = j + 1 < w.kernel_cols ? static_cast<uint32_t>(code(row * w.kernel_cols + j + 1)) : 0;
        weights.push_back(static_cast<int32_t>(first | second << 16));
      }
    }
  }

  // What `count` channels from `first` on hold for `some` rows of outputs from `row` on.
  template <Part part, typename T>
  void read(int64_t index, int64_t first, int64_t count, int64_t row, int64_t some, int16_t* to) const {
    const T* const x = reinterpret_cast<const T*>(image) + index * image_step + first * w.channel_step;
    const int16_t pad = part_of<part>(static_cast<int16_t>(w.pad));
    const int64_t left = w.padding.second, begin = std::min(left, width);
    const int64_t end = std::clamp<int64_t>(left + w.width, begin, width);
    const int64_t top = row * w.stride.first - w.padding.first;
    for (int64_t i = 0; i < (some - 1) * w.stride.first + w.kernel_rows; ++i, to += width) {
      const bool inside = top + i >= 0 && top + i < w.height;
      for (int64_t c = 0; c < count; ++c) {
        std::fill(to + c * plane, to + c * plane + (inside ? begin : width), pad);
        if (inside) std::fill(to + c * plane + end, to + c * plane + width, pad);
      }
      if (inside && begin < end) {
        read_row<part>(x + (top + i) * w.row_step, w.channel_step, w.col_step, count, end - begin, to + begin, plane);
      }
    }
  }

  template <Part part>
  void read(int64_t index, int64_t first, int64_t count, int64_t row, int64_t some, int16_t* to) const {
    if (gemm.b_codes == Codes::int8) return read<part, int8_t>(index, first, count, row, some, to);
    if (gemm.b_codes == Codes::uint8) return read<part, uint8_t>(index, first, count, row, some, to);
    read<part, int16_t>(index, first, count, row, some, to);
  }

  // Sums of `some` rows of one output; those of the low bytes stand behind those of the high ones.
  void finish(const int32_t* from, int64_t apart, int64_t some, int64_t step, char* to) const {
    for (int64_t r = 0; r < some; ++r, from += step, to += w.out_cols * size_out) {
      if (size_out == sizeof(int32_t)) {
        std::memcpy(to, from, static_cast<size_t>(w.out_cols) * sizeof(int32_t));
        continue;
      }
      int64_t* const y = reinterpret_cast<int64_t*>(to);
      for (int64_t q = 0; q < w.out_cols; ++q) {
        y[q] = split ? int64_t{from[q]} * 256 + from[apart + q] : int64_t{from[q]};
      }
    }
  }

  void run() const {
    const int64_t blocks = (groups + channels - 1) / channels, parts = (w.out_rows + rows - 1) / rows;
    const int64_t tasks = images * blocks * parts, held = flat ? rows * width : w.out_cols;
    const int64_t pairs = static_cast<int64_t>(offsets.size());
    const bool direct = !flat && size_out == sizeof(int32_t);
    const int threads = threads_for(images * groups * gemm.m * w.pixels() * w.taps(), kGrain);
    parallel_tasks(tasks, static_cast<int>(std::min<int64_t>(threads, tasks)), [&](int64_t task) {
      const int64_t row = task % parts * rows, some = std::min(rows, w.out_rows - row), index = task / parts / blocks;
      const int64_t first = task / parts % blocks * channels, count = std::min(channels, groups - first);
      const int64_t values = channels * plane;
      const size_t bytes = static_cast<size_t>(values) * 2 * sizeof(int16_t) + static_cast<size_t>(held) * 8;
      int16_t* const x = static_cast<int16_t*>(scratch(Slot::caller, bytes));
      int32_t* const made = reinterpret_cast<int32_t*>(x + 2 * values);
      if (split) {
        read<Part::high>(index, first, count, row, some, x);
        read<Part::low>(index, first, count, row, some, x + values);
      } else {
        read<Part::whole>(index, first, count, row, some, x);
      }
      for (int64_t o = first * gemm.m; o < (first + count) * gemm.m; ++o) {
        char* const y = out + ((index * groups * gemm.m + o) * w.pixels() + row * w.out_cols) * size_out;
        const int16_t* const seen = x + (o / gemm.m - first) * plane;
        const int64_t steps = flat ? 1 : some, length = flat ? (some - 1) * width + w.out_cols : w.out_cols;
        for (int64_t r = 0; r < steps; ++r) {
          char* const to = y + r * w.out_cols * size_out;
          PairSums s{seen + r * w.stride.first * width,
                     w.stride.second,
                     offsets.data(),
                     weights.data() + o * pairs,
                     pairs,
                     direct ? reinterpret_cast<int32_t*>(to) : made,
                     length};
          sums.run(s);
          if (direct) continue;
          if (split) s.x += values, s.sums += held, sums.run(s);
          finish(made, held, flat ? some : 1, width, to);
        }
      }
    });
  }
};

}  // namespace

bool is_depthwise(const IntegerConv& job) {
  const bool plain = job.gemm.plan.chunk == 0 && job.gemm.plan.shift == 0;
  const int bits = job.accumulator.bits;
  const bool whole = job.accumulator.overflow != "wrap" || bits == 32 || bits == 64;
  return job.w.channels == 1 && job.groups > 1 && plain && whole && job.w.dilation == Pair{1, 1} &&
         job.w.stride.second <= 2 && Depth(job).possible;
}

void convolve_depthwise(const IntegerConv& job) { Depthwise(job).run(); }

}  // namespace ulpgrad
