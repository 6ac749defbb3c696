// Properties of the index arithmetic that CUDA kernels share with the host: built and run by tests/test_cuda_index.py,
// with the address and undefined-behaviour sanitizers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "conv_index.cuh"
#include "element.cuh"
#include "expect.h"
#include "matrix_unit.cuh"
#include "pool_window.cuh"
#include "swizzle.cuh"

using namespace ulpgrad;

namespace {

using Read = std::tuple<long long, long long, long long>;  // position, tap of the filter, pixel

// What a convolution reads along one axis, padding left out, by its definition.
std::set<Read> defined(const Window& w) {
  std::set<Read> reads;
  for (long long o = 0; o < w.positions; ++o) {
    for (long long t = 0; t < w.kernel; ++t) {
      const long long pixel = o * w.stride - w.padding + t * w.dilation;
      if (pixel >= 0 && pixel < w.size) reads.insert({o, t, pixel});
    }
  }
  return reads;
}

void check_window(const Window& w) {
  const std::set<Read> wanted = defined(w);
  std::vector<Read> forward, backward;
  const Axis a = forward_axis(w);
  for (int p = 0; p < a.positions; ++p) {
    for (int t = 0; t < a.taps; ++t) {
      const int pixel = read_at(a, p, t);
      if (inside(pixel, a.size)) {
        forward.push_back({a.target_first + p * a.target_step, a.tap_first + t * a.tap_step, pixel});
      }
    }
  }
  std::set<long long> pixels;
  for (int phase = 0; phase < phases(w); ++phase) {
    const Axis b = gradient_axis(w, phase);
    for (int p = 0; p < b.positions; ++p) {
      const long long pixel = b.target_first + static_cast<long long>(p) * b.target_step;
      EXPECT(pixel < w.size && pixels.insert(pixel).second, "pixel %lld is written twice, or is none", pixel);
      for (int t = 0; t < b.taps; ++t) {
        const int tap = b.tap_first + t * b.tap_step, position = read_at(b, p, t);
        EXPECT(tap < w.kernel, "tap %d of %d", tap, w.kernel);
        if (inside(position, b.size)) backward.push_back({position, tap, pixel});
      }
    }
  }
  EXPECT(static_cast<int>(pixels.size()) == w.size, "%zu of %d pixels are written", pixels.size(), w.size);
  for (auto* found : {&forward, &backward}) {
    const std::set<Read> once(found->begin(), found->end());
    EXPECT(once.size() == found->size() && once == wanted,
           "%s: size %d kernel %d stride %d padding %d dilation %d: %zu reads, %zu different, %zu wanted",
           found == &forward ? "forward" : "input gradient", w.size, w.kernel, w.stride, w.padding, w.dilation,
           found->size(), once.size(), wanted.size());
  }
}

// Windows of pooling see the pixels that their definition says, and pixels are seen by those windows.
void check_pooling(const Window& w) {
  std::set<std::pair<long long, long long>> wanted, seen, over;
  for (const auto& [position, tap, pixel] : defined(w)) wanted.insert({position, pixel});
  for (int o = 0; o < w.positions; ++o) {
    const Span span = span_of(w, o);
    for (long long pixel = span.first; pixel < span.end; pixel += w.dilation) seen.insert({o, pixel});
  }
  for (int pixel = 0; pixel < w.size; ++pixel) {
    const Span span = windows_over(w, pixel);
    for (long long o = span.first; o < span.end; ++o) over.insert({o, pixel});
  }
  EXPECT(seen == wanted && (w.dilation > 1 || over == wanted),
         "size %d kernel %d stride %d padding %d dilation %d: %zu and %zu, %zu wanted", w.size, w.kernel, w.stride,
         w.padding, w.dilation, seen.size(), over.size(), wanted.size());
}

// Parts of an axis in a given number: floor and ceiling of fractions, values seen by those parts, and 64-bit products.
void parts_cover_an_axis() {
  for (int size = 1; size <= 40; ++size)
    for (int count = 1; count <= 40; ++count) {
      std::set<std::pair<long long, long long>> seen, over;
      for (int i = 0; i < count; ++i) {
        const Span span = part_of(size, count, i);
        const double first = std::floor(double(i) * size / count), end = std::ceil(double(i + 1) * size / count);
        EXPECT(span.first == first && span.end == end, "part %d of %d in %d", i, size, count);
        for (long long value = span.first; value < span.end; ++value) seen.insert({i, value});
      }
      for (int value = 0; value < size; ++value) {
        const Span span = part_of(count, size, value);
        for (long long i = span.first; i < span.end; ++i) over.insert({i, value});
      }
      EXPECT(seen == over, "size %d in %d: %zu and %zu", size, count, seen.size(), over.size());
    }
  const Span last = part_of(2147483647, 2147483646, 2147483645);
  EXPECT(last.first == 2147483645 && last.end == 2147483647, "%lld to %lld", last.first, last.end);
}

void every_position_reads_its_pixels_once() {
  int checked = 0;
  for (int size = 1; size <= 7; ++size)
    for (int kernel = 1; kernel <= 4; ++kernel)
      for (int stride = 1; stride <= 6; ++stride)
        for (int padding = 0; padding <= 5; ++padding)
          for (int dilation = 1; dilation <= 4; ++dilation) {
            const int free = size + 2 * padding - dilation * (kernel - 1) - 1;
            if (free < 0) continue;
            const Window w = {size, kernel, stride, padding, dilation, free / stride + 1};
            check_window(w);
            check_pooling(w);
            ++checked;
          }
  EXPECT(checked > 2000, "%d windows", checked);
}

// Coordinates of an axis as long as 31 bits allow, at its ends: the sanitizer sees an overflow.
void long_axes_do_not_overflow() {
  const int longest = 2147483647;
  for (const Window& w : {Window{longest, 1, 1, 0, 1, longest}, Window{1, 3, 1, 1073741823, 1073741823, 1},
                          Window{longest - 2, 3, 2, 1, 1, (longest - 3) / 2 + 1},
                          Window{longest - 200, 2, 1000000007, 100, 1000000000, 2}}) {
    const Axis a = forward_axis(w);
    for (int p : {0, a.positions - 1}) {
      for (int t : {0, a.taps - 1}) {
        const long long pixel = 1LL * p * w.stride - w.padding + 1LL * t * w.dilation;
        EXPECT(read_at(a, p, t) == pixel, "position %d tap %d", p, t);
      }
    }
    for (int phase : {0, phases(w) / 2, phases(w) - 1}) {
      const Axis b = gradient_axis(w, phase);
      for (int p : {0, b.positions - 1}) {
        for (int t : {0, b.taps - 1}) {
          if (b.taps == 0 || b.positions == 0) continue;
          const long long pixel = b.target_first + 1LL * p * b.target_step, tap = b.tap_first + 1LL * t * b.tap_step;
          EXPECT(pixel < w.size && tap < w.kernel, "pixel %lld tap %lld", pixel, tap);
          EXPECT(1LL * read_at(b, p, t) * w.stride == pixel + w.padding - tap * w.dilation, "pixel %lld", pixel);
        }
      }
    }
  }
}

void divisors_divide() {
  std::mt19937 random(1);
  const unsigned most = 2147483647u;
  std::vector<unsigned> edges = {1, 2, 3, 5, 7, 8, 9, 641, 65535, 65536, 65537, most - 1, most};
  for (int i = 0; i < 2000; ++i) edges.push_back(std::max(1u, static_cast<unsigned>(random()) >> (1 + random() % 31)));
  for (unsigned d : edges) {
    const Divisor divisor = divisor_of(d);
    for (unsigned n : edges) {
      const unsigned multiple = n / d * d;
      for (unsigned m : {n, n - 1, multiple, multiple - 1}) {
        if (m > most) continue;  // below zero
        EXPECT(quotient(m, divisor) == m / d, "%u / %u gave %u", m, d, quotient(m, divisor));
      }
    }
  }
}

void rows_and_columns_count_up() {
  const Axis y = forward_axis({5, 3, 1, 1, 1, 5}), x = forward_axis({9, 2, 2, 0, 1, 4});
  const Rows rows = rows_of(y, x);
  unsigned row = 0;
  for (int image = 0; image < 3; ++image)
    for (int i = 0; i < y.positions; ++i)
      for (int j = 0; j < x.positions; ++j) {
        const Place place = place_of(row++, rows);
        EXPECT(place.image == image && place.y == i && place.x == j, "row %u", row - 1);
      }
  const Columns columns = columns_of(6, x);
  unsigned column = 0;
  for (int i = 0; i < y.taps; ++i)
    for (int j = 0; j < x.taps; ++j)
      for (int channel = 0; channel < 6; ++channel) {
        const Tap tap = tap_of(column++, columns);
        EXPECT(tap.y == i && tap.x == j && tap.channel == channel, "column %u", column - 1);
      }
}

void offsets_have_64_bits() {
  const int n = 3, c = 70000, h = 300, w = 200;
  const Strides first = {1LL * c * h * w, 1LL * h * w, w, 1}, last = {1LL * h * w * c, 1, 1LL * w * c, c};
  const long long end = 1LL * n * c * h * w - 1;
  EXPECT(end > 4294967296LL, "%lld", end);
  EXPECT(offset_of(first, n - 1, c - 1, h - 1, w - 1) == end, "channels first");
  EXPECT(offset_of(last, n - 1, c - 1, h - 1, w - 1) == end, "channels last");
}

void elements_count_up() {
  for (bool last : {false, true}) {
    Elements all = elements_of(2, 3, 4, 5, last);
    for (long long far : {0ll, 1ll << 32}) {  // as many that numbers need 64 bits
      all.count += far;
      for (int i = 0; i < 120; ++i) {
        const Element e = element_at(all, i);
        const int number =
            last ? ((e.image * 4 + e.y) * 5 + e.x) * 3 + e.channel : ((e.image * 3 + e.channel) * 4 + e.y) * 5 + e.x;
        EXPECT(number == i && e.channel < 3 && e.y < 4 && e.x < 5, "element %d", i);
      }
    }
    const long long image = (1ll << 33) / 60;
    EXPECT(element_at(all, image * 60).image == image, "image %lld", image);
  }
}

void slices_cover_everything_once() {
  for (int count : {0, 1, 31, 32, 33, 1000, 2147483647})
    for (int slices : {1, 2, 7, 64})
      for (int block : {1, 16, 32}) {
        long long end = 0;
        for (int s = 0; s < slices; ++s) {
          const Range r = share_of(s, slices, count, block);
          EXPECT(r.first == end && r.last >= r.first && (r.first % block == 0 || r.first == r.last), "slice %d of %d",
                 s, slices);
          end = r.last;
        }
        EXPECT(end == count, "%d in %d slices of blocks of %d: %lld", count, slices, block, end);
      }
}

// As many positions, or values of a filter, as may be numbered: what a tile reads behind the last is numbered too.
void tiles_reach_behind_the_last() {
  constexpr int REACH = 255;
  for (int count : {MOST_NUMBERED, MOST_NUMBERED - 1, MOST_NUMBERED - 300})
    for (int slices : {1, 2, 7, 65535})
      for (int depth : {8, 16, 32, 64}) {
        int end = 0;
        for (int s : {0, slices / 2, slices - 1}) {
          const Range r = share_of(s, slices, count, depth);
          const int steps = steps_of(r, depth), last = r.first + (steps - 1) * depth;
          EXPECT(steps > 0 && last < r.last && r.last - last <= depth, "slice %d of %d: %d steps", s, slices, steps);
          EXPECT(place_of(static_cast<unsigned>(last), rows_of({}, {})).image >= 0, "position %d", last);
          EXPECT(last + REACH > last, "behind position %d", last);
          end = r.last;
        }
        EXPECT(end == count, "%d of %d", end, count);
        EXPECT(cdiv(count, depth) == (count - 1) / depth + 1, "%d in steps of %d", count, depth);
      }
  const Axis y = forward_axis({MOST_NUMBERED, 1, 1, 0, 1, MOST_NUMBERED}), x = forward_axis({1, 1, 1, 0, 1, 1});
  const Rows rows = rows_of(y, x);
  const Columns columns = columns_of(MOST_NUMBERED, x);
  for (unsigned behind : {0u, 1u, 128u, unsigned{REACH}}) {
    const unsigned number = static_cast<unsigned>(MOST_NUMBERED) - 1 + behind;
    const Place place = place_of(number, rows);
    EXPECT(place.image == (behind > 0) && place.y == (behind ? static_cast<int>(behind) - 1 : MOST_NUMBERED - 1),
           "row %u", number);
    const Tap tap = tap_of(number, columns);
    EXPECT(tap.y == (behind > 0) && tap.channel == place.y, "column %u", number);
  }
}

template <int CHUNKS>
void check_swizzle() {
  std::set<int> places;
  for (int row = 0; row < 128; ++row) {
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
      const int place = swizzled<CHUNKS>(row, chunk);
      EXPECT(place / CHUNKS == row && places.insert(place).second, "%d chunks, row %d: %d", CHUNKS, row, place);
    }
  }
  for (int row = 0; row < 128; row += 8) {  // a matrix is loaded: eight rows of one chunk
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
      std::set<int> groups;
      for (int r = row; r < row + 8; ++r) groups.insert(swizzled<CHUNKS>(r, chunk) % 8);
      EXPECT(groups.size() == 8, "%d chunks: rows from %d, chunk %d: %zu groups of banks", CHUNKS, row, chunk,
             groups.size());
    }
  }
  for (int first = 0; first < 128 * CHUNKS; first += 8) {  // a tile is stored: eight chunks one after the other
    std::set<int> groups;
    for (int i = first; i < first + 8; ++i) groups.insert(swizzled<CHUNKS>(i / CHUNKS, i % CHUNKS) % 8);
    EXPECT(groups.size() == 8, "%d chunks: stores from %d", CHUNKS, first);
  }
}

// The fragments of a warp's lanes hold every element of a matrix once.
template <int ROWS, int COLUMNS, int ELEMENTS>
void check_fragment(Spot (*spot_of)(int, int)) {
  std::set<std::pair<int, int>> held;
  for (int lane = 0; lane < WARP; ++lane) {
    for (int i = 0; i < ELEMENTS; ++i) {
      const Spot spot = spot_of(lane, i);
      EXPECT(spot.row < ROWS && spot.column < COLUMNS, "lane %d element %d: %d, %d", lane, i, spot.row, spot.column);
      held.insert({spot.row, spot.column});
    }
  }
  EXPECT(held.size() == ROWS * COLUMNS, "%zu of %d elements", held.size(), ROWS * COLUMNS);
}

// What a lane has after four matrices were loaded from the chunks that the lanes named: element i of register r. Lines
// of the tile are rows of A or columns of B, or with `along` the steps that are summed over.
template <int PER>
Spot loaded(Spot (*chunk_of)(int), bool along, int lane, int r, int i) {
  const Spot at = along ? spot_of_load(lane, i, true) : Spot{lane / 4, lane % 4 * PER + i};
  const Spot first = chunk_of(r * 8 + at.row);
  return {first.row, first.column * 4 * PER + at.column};
}

// PER elements to a register.
template <int PER>
void check_loads() {
  for (int lane = 0; lane < WARP; ++lane) {
    for (int r = 0; r < 4; ++r) {
      for (int i = 0; i < PER; ++i) {
        const Spot a = spot_of_a<PER>(lane, r * PER + i), b = spot_of_b<PER>(lane, r % 2 * PER + i);
        const int column = b.column + r / 2 * 8;  // registers 2 and 3 are the next B's
        const Spot rows = loaded<PER>(chunk_of_a, false, lane, r, i),
                   columns = loaded<PER>(chunk_of_b_transposed, false, lane, r, i);
        EXPECT(rows.row == a.row && rows.column == a.column, "A, lane %d register %d", lane, r);
        EXPECT(columns.row == column && columns.column == b.row, "B, lane %d register %d", lane, r);
        if (PER != 2) continue;
        const Spot steps = loaded<PER>(chunk_of_a_transposed, true, lane, r, i),
                   down = loaded<PER>(chunk_of_b, true, lane, r, i);
        EXPECT(steps.row == a.column && steps.column == a.row, "A by steps, lane %d register %d", lane, r);
        EXPECT(down.row == b.row && down.column == column, "B by steps, lane %d register %d", lane, r);
      }
    }
  }
}

// Tiles of 32-bit elements by steps: chunks keep their line, and a warp that reads a register of a fragment meets no
// bank twice.
template <int CHUNKS>
void check_pairs() {
  std::set<int> places;
  for (int line = 0; line < 16; ++line) {
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
      const int place = swizzled_by_pairs<CHUNKS>(line, chunk);
      EXPECT(place / CHUNKS == line && places.insert(place).second, "line %d chunk %d: %d", line, chunk, place);
    }
  }
  const auto bank = [](int line, int element) {
    return (swizzled_by_pairs<CHUNKS>(line, element / 4) * 4 + element % 4) % 32;
  };
  for (int step : {0, 8}) {
    for (int first = 0; first < CHUNKS * 4; first += 16) {
      for (int e = 0; e < 4; ++e) {
        std::set<int> a_banks, b_banks;
        for (int lane = 0; lane < WARP; ++lane) {
          const Spot a = spot_of_a<1>(lane, e), b = spot_of_b<1>(lane, e % 2);
          a_banks.insert(bank(step + a.column, first + a.row));
          b_banks.insert(bank(step + b.row, first + b.column));
        }
        EXPECT(a_banks.size() == 32 && b_banks.size() == 32, "steps from %d: %zu and %zu banks", step, a_banks.size(),
               b_banks.size());
      }
    }
  }
}

// Two parts of 11 bits hold a float32 to 2^-23 of it; what is not finite stays so.
void parts_hold_a_float32() {
  std::mt19937 random(1);
  for (int i = 0; i < 100000; ++i) {
    const unsigned bits = static_cast<unsigned>(random());
    const float value = __uint_as_float(bits);
    const Tf32Pair pair = split_in_tf32(value);
    const float big = __uint_as_float(pair.big), small = __uint_as_float(pair.small);
    if (!std::isfinite(value)) {
      EXPECT(!std::isfinite(big), "%08x", bits);
    } else if (std::fabs(value) < 1e38f && std::fabs(value) > 1e-30f) {
      EXPECT((pair.big & 0x1fffu) == 0 && (pair.small & 0x1fffu) == 0, "%08x", bits);
      EXPECT(std::fabs(small) <= std::ldexp(std::fabs(value), -11), "%08x", bits);
      EXPECT(std::fabs(static_cast<double>(value) - big - small) <= std::ldexp(std::fabs(double{value}), -23), "%08x",
             bits);
    }
  }
  for (unsigned bits : {0x7fffffffu, 0x7f800001u, 0xff800000u, 0x7fc00000u}) {
    EXPECT(!std::isfinite(__uint_as_float(split_in_tf32(__uint_as_float(bits)).big)), "%08x", bits);
  }
}

}  // namespace

int main() {
  every_position_reads_its_pixels_once();
  parts_cover_an_axis();
  long_axes_do_not_overflow();
  divisors_divide();
  rows_and_columns_count_up();
  offsets_have_64_bits();
  elements_count_up();
  slices_cover_everything_once();
  tiles_reach_behind_the_last();
  check_swizzle<2>();
  check_swizzle<4>();
  check_swizzle<8>();
  check_swizzle<16>();
  check_pairs<8>();
  check_pairs<16>();
  check_pairs<32>();
  check_fragment<16, 8, 4>(spot_of_a<1>);
  check_fragment<16, 16, 8>(spot_of_a<2>);
  check_fragment<16, 32, 16>(spot_of_a<4>);
  check_fragment<8, 8, 2>(spot_of_b<1>);
  check_fragment<16, 8, 4>(spot_of_b<2>);
  check_fragment<32, 8, 8>(spot_of_b<4>);
  check_fragment<16, 8, 4>(spot_of_c);
  check_loads<1>();
  check_loads<2>();
  check_loads<4>();
  parts_hold_a_float32();
}
