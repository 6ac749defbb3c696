// Properties of the weight gradient on warp groups, whose copies and operands these functions describe: built and run
// by tests/test_cuda_index.py, with the address and undefined-behaviour sanitizers.
#include <map>
#include <set>
#include <vector>

#include "bulk_copy.cuh"
#include "conv_weight_blocks.cuh"
#include "expect.h"
#include "warpgroup.cuh"

using namespace ulpgrad;

namespace {

constexpr int LARGEST = 2147483647;

// All copies of all slices bring each pair of a position and a tap once, with the pixel that the window sees there or
// one beside the image; what is behind the last position is behind the last image.
void check_reads(const Convolution& c, int slices) {
  const Axis y = forward_axis(c.y), x = forward_axis(c.x);
  const WeightGather g = weight_gather(c, 2, 64, slices);
  const host::MapFields map = {0,
                               {2, 2, 2, 2},
                               {c.inputs, x.size, y.size, c.images},
                               {},
                               {g.x.lower, g.y.lower},
                               {upper_of(g.x, x), upper_of(g.y, y)},
                               {g.x.stride, g.y.stride},
                               BLOCK_CHANNELS,
                               BLOCK_POSITIONS};
  std::vector<int> seen(static_cast<size_t>(g.positions) * y.taps * x.taps);
  int last = 0;
  for (int slice = 0; slice < slices; ++slice) {
    const Range range = g.range(slice);
    EXPECT(range.first == last && range.first % BLOCK_POSITIONS == 0, "slice %d begins at %d", slice, range.first);
    EXPECT(steps_of(range, BLOCK_POSITIONS) > 0 || slices > (g.positions + 63) / 64, "slice %d of %d is empty", slice,
           slices);
    last = range.last;
    for (int step = 0; step < steps_of(range, BLOCK_POSITIONS); ++step) {
      const int first = range.first + step * BLOCK_POSITIONS;
      const Place place = place_of(first, g.rows);
      for (int block = 0; block < g.blocks.count; ++block) {
        const Tap tap = block_at(g.blocks, block);
        if (tap.channel > 0) continue;
        const host::Coordinates base = {0, base_at(g.x, place.x), base_at(g.y, place.y), place.image};
        const std::array<int, 2> offset = {tap_offset(g.x, tap.x), tap_offset(g.y, tap.y)};
        host::walk_pixels(map, base, offset, [&](int pixel, host::Coordinates at) {
          if (first + pixel >= g.positions) {
            EXPECT(at[3] >= c.images, "position %d is none, and reads image %d", first + pixel, at[3]);
            return;
          }
          EXPECT(first + pixel < range.last, "position %d is another slice's", first + pixel);
          const Place want = place_of(first + pixel, g.rows);
          EXPECT(at[1] == read_at(x, want.x, tap.x) && at[2] == read_at(y, want.y, tap.y) && at[3] == want.image,
                 "position %d taps %d, %d: pixel %d, %d of image %d", first + pixel, tap.y, tap.x, at[2], at[1], at[3]);
          ++seen[(static_cast<size_t>(first + pixel) * y.taps + tap.y) * x.taps + tap.x];
        });
      }
    }
  }
  EXPECT(last == g.positions, "slices end at %d of %d", last, g.positions);
  for (const int times : seen) EXPECT(times == 1, "a position under a tap is read %d times", times);
}

void every_position_is_read_once_under_each_tap() {
  int checked = 0;
  for (int size : {1, 5, 12})
    for (int kernel = 1; kernel <= 4; ++kernel)
      for (int stride = 1; stride <= 3; ++stride)
        for (int padding = 0; padding <= 3; ++padding)
          for (int dilation = 1; dilation <= 2; ++dilation) {
            const int free = size + 2 * padding - dilation * (kernel - 1) - 1;
            if (free < 0) continue;
            const Window w = {size, kernel, stride, padding, dilation, free / stride + 1};
            const Window other = {9, 2, 2, 1, 1, 5};
            for (int slices : {1, 2, 3}) {
              check_reads({3, 1, 72, 8, w, other}, slices);
              check_reads({2, 1, 8, 8, other, w}, slices);
            }
            ++checked;
          }
  EXPECT(checked > 100, "%d windows", checked);
}

// Two groups of threads make each sum of each slice once, and a place in memory is one's.
void every_sum_is_made_once() {
  for (int inputs : {1, 8, 64, 65, 130})
    for (int outputs : {1, 64, 100})
      for (int kernel : {1, 2, 3}) {
        const Window y = {9, kernel, 1, 1, 1, 12 - kernel}, x = {9, 2, 1, 1, 1, 10};
        const Convolution c = {2, 1, inputs, outputs, y, x};
        for (int width : {64, 256}) {
          const int slices = 2;
          const WeightGather g = weight_gather(c, 2, width, slices);
          std::map<int, std::set<long long>> made;
          for (unsigned item = 0; item < g.order.count(); ++item) {
            EXPECT(g.order.slice(item) < slices && g.order.block(item) % 2 == 0, "item %u", item);
            for (int group = 0; group < 2; ++group) {
              const int block = g.order.block(item) + group;
              const Tap tap = block_at(g.blocks, block), last = block_at(g.blocks, g.blocks.count - 1);
              if (block >= g.blocks.count) {
                EXPECT(group == 1 && tap.y == last.y && tap.x == last.x, "a block behind the last");
                continue;
              }
              EXPECT(tap.channel < inputs && tap.y < kernel && tap.x < 2, "block %d", block);
              for (int row = 0; row < BLOCK_CHANNELS && tap.channel + row < inputs; ++row) {
                for (int column = 0; column < width && g.order.output(item) + column < outputs; ++column) {
                  const long long at = weight_offset(c, tap, g.order.output(item) + column) + row;
                  EXPECT(made[g.order.slice(item)].insert(at).second, "%lld is made twice", at);
                }
              }
            }
          }
          const long long all = static_cast<long long>(outputs) * kernel * 2 * inputs;
          for (int slice = 0; slice < slices; ++slice) {
            const std::set<long long>& places = made[slice];
            EXPECT(static_cast<long long>(places.size()) == all, "%zu of %lld sums", places.size(), all);
            EXPECT(*places.begin() == 0 && *places.rbegin() == all - 1, "beside the sums");
          }
        }
      }
}

// As many positions as can be numbered, filters of more than 2^31 values, the most tiles.
void nothing_overflows() {
  const Window y = {LARGEST, 1, 1, 0, 1, LARGEST}, x = {1, 1, 1, 0, 1, 1};
  for (int slices : {1, 2, 1000, 1 << 20}) {
    const WeightGather g = weight_gather({1, 1, 8, 8, y, x}, 2, 64, slices);
    const Range first = g.range(0), last = g.range(slices - 1);
    EXPECT(g.positions == LARGEST && first.first == 0 && last.last == LARGEST, "%d slices", slices);
    const int steps = steps_of(last, BLOCK_POSITIONS), position = last.first + (steps - 1) * BLOCK_POSITIONS;
    EXPECT(position < LARGEST && LARGEST - position <= BLOCK_POSITIONS, "the last step begins at %d", position);
    EXPECT(place_of(static_cast<unsigned>(position), g.rows).y == position, "position %d", position);
  }
  EXPECT(steps_of({5, 5}, 64) == 0 && steps_of({0, 1}, 64) == 1 && steps_of({64, 128}, 64) == 1 &&
             steps_of({0, 65}, 64) == 2,
         "steps");
  const Window wide = {300, 256, 1, 0, 1, 45};
  const Convolution c = {1, 1, 4096, 65536, wide, wide};
  const long long taps = 256 * 256, end = weight_offset(c, {255, 255, 4095}, 65535);
  EXPECT(end == taps * 4096 * 65536 - 1, "the last weight at %lld", end);
  const WeightGather g = weight_gather(c, 2, 64, 1);
  EXPECT(g.blocks.count == taps * 64 && g.order.count() == taps * 32 * 1024, "%u tiles", g.order.count());
  const unsigned item = g.order.count() - 1;
  EXPECT(g.order.block(item) == g.blocks.count - 2 && g.order.output(item) == 65536 - 64 && g.order.slice(item) == 0,
         "the last tile");
}

// Fields as the PTX ISA has them for operands whose lines are steps (MN-major), and values where the copy unit puts
// them: 64 rows side by side in each of 64 lines, and the next 64 in the next copy.
void descriptors_read_across() {
  host::shared_memory.resize((256 << 10) + 1024);
  constexpr unsigned COPY = BLOCK_POSITIONS * LINE;
  for (unsigned address = 0; address < 192u << 10; address += COPY) {
    const unsigned long long d = operand_descriptor<true>(address);
    EXPECT((d & 0x3fff) * 16 == address && (d >> 14 & 3) == 0, "address %u", address);
    EXPECT((d >> 16 & 0x3fff) * 16 == COPY && (d >> 30 & 3) == 0, "leading distance: between blocks of 64 rows");
    EXPECT((d >> 32 & 0x3fff) * 16 == 1024 && (d >> 46 & 7) == 0, "stride distance: between groups of eight steps");
    EXPECT((d >> 49 & 7) == 0 && (d >> 52 & 0x3ff) == 0 && d >> 62 == 1, "base offset and pattern");
    for (int k = 0; k < BLOCK_POSITIONS; k += 16) {
      const unsigned long long from = behind<true>(d, k);
      EXPECT((from >> 14) == (d >> 14), "%d steps behind, only the address changes", k);
      for (int row = 0; row < 256 && address + COPY * (row / 64 + 1) <= 192u << 10; ++row) {
        for (int step = 0; step < 16; ++step) {
          const auto at = reinterpret_cast<const unsigned char*>(host::element_of<true>(from, row, step));
          const size_t copied = (static_cast<size_t>(k) + step) * LINE + row % 64 * 2;
          const size_t want = host::swizzled_address(address + row / 64 * COPY + copied);
          EXPECT(at == host::dynamic_shared() + want, "row %d step %d", row, k + step);
        }
      }
      for (int half = 0; half < 16; half += 8) {  // eight rows of eight steps
        std::set<size_t> groups;
        for (int step = 0; step < 8; ++step) {
          const auto at = reinterpret_cast<const unsigned char*>(host::element_of<true>(from, 8, half + step));
          groups.insert(static_cast<size_t>(at - host::dynamic_shared()) / 16 % 8);
        }
        EXPECT(groups.size() == 8, "steps from %d: %zu groups of banks", k + half, groups.size());
      }
    }
  }
}

}  // namespace

int main() {
  every_position_is_read_once_under_each_tap();
  every_sum_is_made_once();
  nothing_overflows();
  descriptors_read_across();
}
