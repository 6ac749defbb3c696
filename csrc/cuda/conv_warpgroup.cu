// Implicit matmul on the matrix units of sm_90: one thread has the copy unit bring tiles of patches and filters, two
// warp groups multiply them where they lie, and a block goes on to its next tile while the results of one are stored.
#include "conv_results.cuh"
#include "warpgroup_tile.cuh"

namespace ulpgrad {

template <int WIDTH>
struct ResultTile : GroupTile<WIDTH, WIDTH == 256 ? 3 : 4> {
  // Sums go to memory in slices of a warp's rows.
  static constexpr int SLICE = WIDTH < 128 ? WIDTH : 128;
  using Slice = Sums<16, SLICE, WARP>;
};

// `phase` of the strides, of the input gradient: each is a launch, since the copy unit walks along images of its own.
template <class T, bool GRADIENT, int COLUMNS>
__global__ void __launch_bounds__(ResultTile<COLUMNS>::THREADS, 1)
    conv_warpgroup(T* y, const T* x, const T* w, const T* bias, const T* scale, const T* residual, Convolution c,
                   Strides xs, Strides ws, Strides ys, After after, int phase, const __grid_constant__ TensorMap images,
                   const __grid_constant__ TensorMap filters) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Tile = ResultTile<COLUMNS>;
  using Slice = typename Tile::Slice;
  constexpr int STAGES = Tile::STAGES;
  ULPGRAD_DYNAMIC_SHARED(memory);
  __shared__ Gather g;
  __shared__ Epilogue<T> e;
  __shared__ Pipeline<STAGES> pipeline;
  const int thread = threadIdx.x;
  if (thread == 0) {
    const int part = GRADIENT ? blockIdx.z * phases(c.y) * phases(c.x) + phase : blockIdx.z;
    g = gather_of<GRADIENT>(c, part), e = {bias, scale, residual, after};
    init_pipeline(pipeline, Tile::WORKERS / WARP);
  }
  __syncthreads();
  const TileOrder order = tile_order(g.count, g.writes, Tile::ROWS, COLUMNS);
  const int chunks = cdiv(g.reads, Tile::DEPTH), steps = g.y.taps * g.x.taps * chunks;
  Ring<STAGES> ring;

  if (thread >= Tile::WORKERS) {
    give_registers<40>();
    if (thread > Tile::WORKERS) return;
    prefetch(images);
    prefetch(filters);
    const Box by = box_of(g.y), bx = box_of(g.x);
    for (unsigned tile = blockIdx.x; tile < order.count(); tile += gridDim.x) {
      const Place place = place_of(order.row(tile), g.rows);
      const int first_y = base_at(by, place.y), first_x = base_at(bx, place.x), write = order.column(tile);
      for (int tap_y = 0; tap_y < g.y.taps; ++tap_y) {
        for (int tap_x = 0; tap_x < g.x.taps; ++tap_x) {
          const int row = g.y.tap_first + tap_y * g.y.tap_step, column = g.x.tap_first + tap_x * g.x.tap_step;
          for (int read = 0; read < g.reads; read += Tile::DEPTH, ring.next()) {
            Mbarrier* const filled = &pipeline.filled[ring.stage];
            unsigned char* const stage = memory + ring.stage * Tile::STAGE_BYTES;
            wait_for(&pipeline.empty[ring.stage], ring.parity ^ 1);
            arrive_expecting(filled, Tile::STAGE_BYTES);
            copy_pixels(stage, images, filled, g.read_channel + read, first_x, first_y, place.image,
                        tap_offset(bx, tap_x), tap_offset(by, tap_y));
            copy_box(stage + Tile::A_BYTES, filters, filled, (GRADIENT ? g.read_channel : 0) + read,
                     row * c.x.kernel + column, (GRADIENT ? 0 : g.write_channel) + write);
          }
        }
      }
    }
    return;
  }

  take_registers<232>();
  const int group = thread / WARPGROUP, warp = thread / WARP, lane = thread % WARP;
  float* const slice = reinterpret_cast<float*>(memory + STAGES * Tile::STAGE_BYTES + warp * Slice::BYTES);
  for (unsigned tile = blockIdx.x; tile < order.count(); tile += gridDim.x) {
    float sums[COLUMNS / 2];
    sum_steps<Tile, false>(sums, steps, memory, group, lane, pipeline, ring, T{});

#pragma unroll
    for (int from = 0; from < COLUMNS; from += Tile::SLICE) {
      const Slice part = {slice, order.row(tile) + warp * 16, order.column(tile) + from, lane};
      wait_for_lanes();  // the last slice has been stored
#pragma unroll
      for (int i = 0; i < Tile::SLICE / 2; i += 2) {
        const Spot at = spot_of_sum(lane, i);
        *reinterpret_cast<Packet<float, 2>*>(&part.at(at.row, at.column)) = {sums[from / 2 + i],
                                                                             sums[from / 2 + i + 1]};
      }
      wait_for_lanes();
      finish_and_store<GRADIENT, false>(part, y, ys, x, xs, w, ws, c, g, e, [] { wait_for_lanes(); });
    }
  }
#else
  asm volatile("trap;");  // built for another architecture, where it is not to be launched
#endif
}

}  // namespace ulpgrad
