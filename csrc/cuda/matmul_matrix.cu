#include "matmul.cuh"
#include "matrix_tile.cuh"
#include "packet.cuh"

namespace ulpgrad {

// Tiles of 128 x 128 on the matrix units. A_ALONG and B_ALONG: an operand's neighbours in memory are rows of a, or
// columns of b, and not steps of k; they come in chunks of eight, and what lies beyond k in a chunk is zero.
template <class T, bool A_ALONG, bool B_ALONG>
__global__ void __launch_bounds__(256) matmul_matrix(T* c, const T* a, const T* b, Product p) {
  constexpr int COLUMNS = 128;
  using Tile = MatrixTile<T, COLUMNS, A_ALONG, B_ALONG>;
  constexpr int CHUNK = Tile::CHUNK, DEPTH = Tile::DEPTH, THREADS = Tile::THREADS;
  ULPGRAD_DYNAMIC_SHARED(memory);
  const Index across = cdiv(p.n, Index{COLUMNS});
  const Index top = blockIdx.x / across * Tile::ROWS, left = blockIdx.x % across * COLUMNS;
  const int thread = threadIdx.x;
  for (Index s = blockIdx.y; s < p.stacks; s += gridDim.y) {
    const T* const from_a = a + s * p.a_stack;
    const T* const from_b = b + s * p.b_stack;
    const auto copy = [&](int step, unsigned char* stage) {
      const Index depth = static_cast<Index>(step) * DEPTH;
#pragma unroll
      for (int i = thread; i < Tile::ROWS * DEPTH / CHUNK; i += THREADS) {
        const int line = i / Tile::A_LINE, chunk = i % Tile::A_LINE;
        const Index row = top + (A_ALONG ? chunk * CHUNK : line), q = depth + (A_ALONG ? line : chunk * CHUNK);
        const bool is_there = row < p.m && q < p.k;
        copy_async(Tile::chunk_of_a_tile(stage, line, chunk), from_a + (is_there ? row * p.a_row + q * p.a_column : 0),
                   is_there);
      }
#pragma unroll
      for (int i = thread; i < COLUMNS * DEPTH / CHUNK; i += THREADS) {
        const int line = i / Tile::B_LINE, chunk = i % Tile::B_LINE;
        const Index column = left + (B_ALONG ? chunk * CHUNK : line), q = depth + (B_ALONG ? line : chunk * CHUNK);
        const bool is_there = column < p.n && q < p.k;
        copy_async(Tile::chunk_of_b_tile(stage, line, chunk),
                   from_b + (is_there ? column * p.b_column + q * p.b_row : 0), is_there);
      }
    };
    Tile tile;
    tile.run(memory, static_cast<int>(cdiv(p.k, Index{DEPTH})), thread, copy);

    // Through shared memory, so that neighbouring threads store neighbours; lines are padded against bank conflicts.
    constexpr int WIDTH = COLUMNS + 8;
    float* const results = reinterpret_cast<float*>(memory);
    tile.for_each(thread, [&](int row, int column, float sum) { results[row * WIDTH + column] = sum; });
    __syncthreads();
    const bool is_whole = p.n % CHUNK == 0;
    const int run = is_whole ? CHUNK : 1, runs = COLUMNS / run;
    for (int i = thread; i < Tile::ROWS * runs; i += THREADS) {
      const int row = i / runs, column = i % runs * run;
      if (top + row >= p.m || left + column >= p.n) continue;
      T* const to = c + (s * p.m + top + row) * p.n + left + column;
      if (!is_whole) {
        *to = narrow<T>(results[row * WIDTH + column]);
        continue;
      }
      const Packet<float, CHUNK> sums = packet_at<float, CHUNK>(results + row * WIDTH + column);
      Packet<T, CHUNK> packet;
#pragma unroll
      for (int j = 0; j < CHUNK; ++j) packet.values[j] = narrow<T>(sums.values[j]);
      store_packet(to, packet);
    }
    __syncthreads();  // before the next product's tiles are copied here
  }
}

}  // namespace ulpgrad
