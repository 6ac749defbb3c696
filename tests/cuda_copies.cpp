// Properties of what the copy unit and the matrix unit of sm_90 are told: built and run by tests/test_cuda_index.py,
// with the address and undefined-behaviour sanitizers.
#include <set>
#include <utility>
#include <vector>

#include "bulk_copy.cuh"
#include "conv_box.cuh"
#include "expect.h"
#include "swizzle.cuh"
#include "warpgroup.cuh"

using namespace ulpgrad;

namespace {

// The unit walks along images of y by x as the axes say, and each of its pixels is what the axes' positions read.
void check_walk(const Axis& y, const Axis& x, int images, int pixels) {
  const Box by = box_of(y), bx = box_of(x);
  const host::MapFields map = {0,
                               {2, 2, 2, 2},
                               {8, x.size, y.size, images},
                               {},
                               {bx.lower, by.lower},
                               {upper_of(bx, x), upper_of(by, y)},
                               {bx.stride, by.stride},
                               8,
                               pixels};
  const Rows rows = rows_of(y, x);
  const int count = images * y.positions * x.positions;
  for (int first = 0; first < count; first += pixels) {
    const Place place = place_of(first, rows);
    for (int i = 0; i < y.taps; ++i) {
      for (int j = 0; j < x.taps; ++j) {
        EXPECT(tap_offset(by, i) >= 0 && tap_offset(bx, j) >= 0, "taps %d, %d", i, j);  // the unit knows no others
        const host::Coordinates base = {0, base_at(bx, place.x), base_at(by, place.y), place.image};
        host::walk_pixels(map, base, {tap_offset(bx, j), tap_offset(by, i)}, [&](int pixel, host::Coordinates at) {
          if (first + pixel >= count) {
            EXPECT(at[3] >= images, "row %d is none, and reads image %d", first + pixel, at[3]);
            return;
          }
          const Place want = place_of(first + pixel, rows);
          EXPECT(at[1] == read_at(x, want.x, j) && at[2] == read_at(y, want.y, i) && at[3] == want.image,
                 "row %d taps %d, %d: pixel %d, %d of image %d", first + pixel, i, j, at[2], at[1], at[3]);
        });
      }
    }
  }
}

void copies_read_what_windows_see() {
  int checked = 0;
  const Axis other = forward_axis({5, 3, 2, 1, 1, 3}), backward = gradient_axis({5, 3, 1, 1, 1, 5}, 0);
  for (int size = 1; size <= 7; ++size)
    for (int kernel = 1; kernel <= 4; ++kernel)
      for (int stride = 1; stride <= 4; ++stride)
        for (int padding = 0; padding <= 5; ++padding)
          for (int dilation = 1; dilation <= 3; ++dilation) {
            const int free = size + 2 * padding - dilation * (kernel - 1) - 1;
            if (free < 0) continue;
            const Window w = {size, kernel, stride, padding, dilation, free / stride + 1};
            check_walk(other, forward_axis(w), 2, 5);
            check_walk(forward_axis(w), other, 2, 7);
            for (int phase = 0; phase < phases(w); ++phase) {
              const Axis gradient = gradient_axis(w, phase);
              if (gradient.taps) check_walk(backward, gradient, 2, 5), check_walk(gradient, other, 2, 9);
            }
            ++checked;
          }
  EXPECT(checked > 800, "%d windows", checked);
}

// A tile that the copy unit writes lies as chunks do that meet no bank twice, wherever it begins.
void tiles_are_swizzled() {
  for (size_t start : {0, 1024, 49152, 196608}) {
    for (int line = 0; line < 256; ++line) {
      for (int chunk = 0; chunk < 8; ++chunk) {
        const size_t address = host::swizzled_address(start + line * 128 + chunk * 16);
        EXPECT(address == start + swizzled<8>(line, chunk) * 16, "line %d chunk %d", line, chunk);
      }
    }
  }
}

// Fields as the PTX ISA has them, and lines and steps where the copy unit has put them.
void descriptors_say_where_operands_lie() {
  host::shared_memory.resize((256 << 10) + 1024);
  for (unsigned address = 0; address < 256u << 10; address += 1024) {
    const unsigned long long d = operand_descriptor(address);
    EXPECT((d & 0x3fff) * 16 == address && (d >> 14 & 3) == 0, "address %u", address);
    EXPECT((d >> 16 & 0x3fff) == 1 && (d >> 30 & 3) == 0, "leading distance");
    EXPECT((d >> 32 & 0x3fff) * 16 == 1024 && (d >> 46 & 7) == 0, "distance of groups");
    EXPECT((d >> 49 & 7) == 0 && (d >> 52 & 0x3ff) == 0 && d >> 62 == 1, "base offset and pattern");
    if (address > 65536) continue;
    for (int k = 0; k < 64; k += 16) {
      for (int line = 0; line < 64; ++line) {
        std::set<size_t> groups;
        for (int step = 0; step < 16; ++step) {
          const auto at = reinterpret_cast<const unsigned char*>(host::element_of(behind(d, k), line, step));
          const size_t want = host::swizzled_address(address + line * 128 + (k + step) * 2);
          EXPECT(at == host::dynamic_shared() + want, "line %d step %d", line, k + step);
        }
      }
      for (int half = 0; half < 16; half += 8) {  // what the unit reads at once: a chunk of eight lines
        std::set<size_t> groups;
        for (int line = 0; line < 8; ++line) {
          const auto at = reinterpret_cast<const unsigned char*>(host::element_of(behind(d, k), line, half));
          groups.insert(static_cast<size_t>(at - host::dynamic_shared()) / 16 % 8);
        }
        EXPECT(groups.size() == 8, "steps from %d: %zu groups of banks", k + half, groups.size());
      }
    }
  }
}

void sums_stand_once() {
  for (int columns : {64, 128, 256}) {
    std::set<std::pair<int, int>> held;
    for (int thread = 0; thread < WARPGROUP; ++thread) {
      for (int i = 0; i < columns / 2; ++i) {
        const Spot at = spot_of_sum(thread, i);
        EXPECT(at.row / 16 == thread / WARP && at.row < GROUP_LINES && at.column < columns, "thread %d", thread);
        EXPECT(i % 2 == 0 || at.column == spot_of_sum(thread, i - 1).column + 1, "pairs are neighbours");
        held.insert({at.row, at.column});
      }
    }
    EXPECT(held.size() == static_cast<size_t>(GROUP_LINES * columns), "%zu of %d", held.size(), GROUP_LINES * columns);
  }
}

// Blocks that take every so many-th tile make each once.
void tiles_are_made_once() {
  for (int rows : {1, 127, 128, 129, 1000, 2147483647})
    for (int columns : {1, 64, 65, 300}) {
      const TileOrder order = tile_order(rows, columns, 128, 64);
      const unsigned last = order.count() - 1;
      EXPECT(order.row(0) == 0 && order.column(0) == 0, "first");
      EXPECT(static_cast<unsigned>(rows) - order.row(last) <= 128 && columns - order.column(last) <= 64, "last");
      if (rows > 1000) continue;
      std::set<std::pair<unsigned, int>> made;
      for (unsigned block = 0; block < 3; ++block)
        for (unsigned tile = block; tile < order.count(); tile += 3) {
          EXPECT(order.row(tile) % 128 == 0 && order.row(tile) < static_cast<unsigned>(rows), "tile %u", tile);
          EXPECT(order.column(tile) % 64 == 0 && order.column(tile) < columns, "tile %u", tile);
          EXPECT(made.insert({order.row(tile), order.column(tile)}).second, "tile %u", tile);
        }
      EXPECT(made.size() == order.count(), "%zu tiles of %u", made.size(), order.count());
    }
  Ring<3> ring;
  for (int turn = 0; turn < 12; ++turn, ring.next()) {
    EXPECT(ring.stage == turn % 3 && ring.parity == static_cast<unsigned>(turn / 3 % 2), "turn %d", turn);
  }
}

}  // namespace

int main() {
  copies_read_what_windows_see();
  tiles_are_swizzled();
  descriptors_say_where_operands_lie();
  sums_stand_once();
  tiles_are_made_once();
}
