// The copies of an implicit matmul's tiles: patches come from the images straight into shared memory, filters from
// theirs, 16 bytes of channels at a time.
#pragma once

#include "conv_gather.cuh"
#include "matrix_tile.cuh"

namespace ulpgrad {

// Blocks of a processor at once, as far as registers allow: of wide tiles two, but for bytes, of whose products there
// are four kinds, and float32, whose parts take nearly all registers.
template <class T, int COLUMNS>
constexpr int BLOCKS = sizeof(T) == 4 ? 1 : (COLUMNS == 64 ? 3 : static_cast<int>(sizeof(T)));

// A thread copies one chunk of several lines: the same steps of every tile, so that a tap is looked up once for all.
template <bool GRADIENT, class Tile, class T>
struct PatchCopies {
  static constexpr int CHUNK = Tile::CHUNK, LINE = Tile::DEPTH / CHUNK, LINES = Tile::THREADS / LINE;
  static constexpr int PIXELS = Tile::ROWS / LINES, WEIGHTS = Tile::COLUMNS / LINES;

  const Gather& g;
  const Strides &xs, &ws;
  int chunk, line;
  Row rows[PIXELS];
  long long columns[WEIGHTS];
  const T *x, *w;
  Step step;

  __device__ inline PatchCopies(const Gather& g, const Strides& xs, const Strides& ws, unsigned first_row,
                                int first_write, int thread)
      : g(g), xs(xs), ws(ws), chunk(thread % LINE), line(thread / LINE) {
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) rows[i] = row_of(g, xs, first_row + line + i * LINES);
#pragma unroll
    for (int i = 0; i < WEIGHTS; ++i) columns[i] = column_of<GRADIENT>(g, ws, first_write + line + i * LINES);
  }

  // Before the first tile of these images and filters.
  __device__ inline void begin(const T* images, const T* filters) {
    x = images, w = filters;
    step = {0, 0, 0, 0, g.reads};
  }

  // Tiles come one after the other. Most steps stay with their tap: the next channels lie behind those before.
  __device__ inline void copy(int tile, unsigned char* stage) {
    const int depth = tile * Tile::DEPTH + chunk * CHUNK;
    const bool is_there = depth < g.depth;
    step.channel += Tile::DEPTH;
    if (step.channel < g.reads) {
      step.read += Tile::DEPTH, step.weight += Tile::DEPTH;
    } else if (is_there) {
      step = step_of<GRADIENT>(g, xs, ws, depth);
    }
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) {
      const bool seen = is_there && sees(g, rows[i], step);
      const T* const from = seen ? x + rows[i].offset + step.read : x;
      copy_async(Tile::chunk_of_a_tile(stage, line + i * LINES, chunk), from, seen);
    }
#pragma unroll
    for (int i = 0; i < WEIGHTS; ++i) {
      copy_async(Tile::chunk_of_b_tile(stage, line + i * LINES, chunk), w + columns[i] + step.weight, is_there);
    }
  }
};

}  // namespace ulpgrad
