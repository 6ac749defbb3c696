// Implicit matmul on the matrix units of sm_90: one thread has the copy unit bring tiles of patches and filters, two
// warp groups multiply them where they lie, and a block goes on to its next tile while the results of one are stored.
#include "bulk_copy.cuh"
#include "conv_box.cuh"
#include "conv_results.cuh"
#include "warpgroup.cuh"

namespace ulpgrad {

// A tile of ROWS x COLUMNS results in steps of DEPTH; a stage has that of the patches and that of the filters.
template <int WIDTH>
struct GroupTile {
  static constexpr int GROUPS = 2, ROWS = GROUPS * GROUP_LINES, COLUMNS = WIDTH, DEPTH = LINE / 2;
  static constexpr int STAGES = WIDTH == 256 ? 3 : 4;
  static constexpr int A_BYTES = ROWS * LINE, B_BYTES = COLUMNS * LINE, STAGE_BYTES = A_BYTES + B_BYTES;
  static constexpr int WORKERS = GROUPS * WARPGROUP, THREADS = WORKERS + WARPGROUP;  // of the last group, one thread
  // Sums go to memory in slices of a warp's rows.
  static constexpr int SLICE = WIDTH < 128 ? WIDTH : 128;
  using Slice = Sums<16, SLICE, WARP>;
  static constexpr int BYTES = STAGES * STAGE_BYTES + WORKERS / WARP * Slice::BYTES;
};

// Stages between the thread that has them filled and the warps that read them.
template <int STAGES>
struct Pipeline {
  Mbarrier filled[STAGES], empty[STAGES];
};

// `phase` of the strides, of the input gradient: each is a launch, since the copy unit walks along images of its own.
template <class T, bool GRADIENT, int COLUMNS>
__global__ void __launch_bounds__(GroupTile<COLUMNS>::THREADS, 1)
    conv_warpgroup(T* y, const T* x, const T* w, const T* bias, const T* scale, const T* residual, Convolution c,
                   Strides xs, Strides ws, Strides ys, After after, int phase, const __grid_constant__ TensorMap images,
                   const __grid_constant__ TensorMap filters) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Tile = GroupTile<COLUMNS>;
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
    for (int i = 0; i < STAGES; ++i) {
      init_barrier(&pipeline.filled[i], 1);
      init_barrier(&pipeline.empty[i], Tile::WORKERS / WARP);
    }
    show_barriers();
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
    int before = 0;
    for (int step = 0; step < steps; ++step) {
      const unsigned stage = shared_address(memory + ring.stage * Tile::STAGE_BYTES);
      const unsigned long long a = operand_descriptor(stage + group * GROUP_LINES * LINE);
      const unsigned long long b = operand_descriptor(stage + Tile::A_BYTES);
      wait_for(&pipeline.filled[ring.stage], ring.parity);
      open_products();
#pragma unroll
      for (int k = 0; k < Tile::DEPTH; k += 16) begin_products(sums, behind(a, k), behind(b, k), step + k > 0, T{});
      close_products();
      wait_for_products<1>();  // those of the step before: its stage may be filled again
      if (step > 0 && lane == 0) arrive(&pipeline.empty[before]);
      before = ring.stage;
      ring.next();
    }
    wait_for_products<0>();
    hold(sums);
    if (lane == 0) arrive(&pipeline.empty[before]);

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
