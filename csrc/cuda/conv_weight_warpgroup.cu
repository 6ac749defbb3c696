// The weight gradient on the matrix units of sm_90: sums over positions, whose channels lie side by side, so that lines
// of both operands are steps of the sum, and the units read them across. Slices of the positions are summed apart.
#include "conv_weight_blocks.cuh"
#include "warpgroup_tile.cuh"

namespace ulpgrad {

// As many stages as fill 192 KiB: sums go to memory from registers.
template <int WIDTH>
using WeightTile = GroupTile<WIDTH, (192 << 10) / (LINE * (2 * GROUP_LINES + WIDTH))>;

// `slices`: at most as many as there are steps.
template <class T, int COLUMNS>
__global__ void __launch_bounds__(WeightTile<COLUMNS>::THREADS, 1)
    conv_weight_warpgroup(float* parts, Convolution c, int slices, const __grid_constant__ TensorMap images,
                          const __grid_constant__ TensorMap gradients) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Tile = WeightTile<COLUMNS>;
  ULPGRAD_DYNAMIC_SHARED(memory);
  __shared__ WeightGather g;
  __shared__ Pipeline<Tile::STAGES> pipeline;
  const int thread = threadIdx.x, lane = thread % WARP;
  if (thread == 0) {
    g = weight_gather(c, Tile::GROUPS, COLUMNS, slices);
    init_pipeline(pipeline, Tile::WORKERS / WARP);
  }
  __syncthreads();
  const unsigned items = g.order.count();
  Ring<Tile::STAGES> ring;

  if (thread >= Tile::WORKERS) {
    give_registers<40>();
    if (thread > Tile::WORKERS) return;
    prefetch(images);
    prefetch(gradients);
    const int first_input = blockIdx.z * c.inputs, first_output = blockIdx.z * c.outputs;
    for (unsigned item = blockIdx.x; item < items; item += gridDim.x) {
      const Range range = g.range(g.order.slice(item));
      const int block = g.order.block(item), output = first_output + g.order.output(item),
                steps = steps_of(range, BLOCK_POSITIONS);
      const bool both = block + 1 < g.blocks.count;
      const Tap first = block_at(g.blocks, block), second = block_at(g.blocks, block + 1);
      for (int step = 0; step < steps; ++step, ring.next()) {
        const int position = range.first + step * BLOCK_POSITIONS;
        const Place place = place_of(static_cast<unsigned>(position), g.rows);
        const int y = base_at(g.y, place.y), x = base_at(g.x, place.x);
        Mbarrier* const filled = &pipeline.filled[ring.stage];
        unsigned char* const stage = memory + ring.stage * Tile::STAGE_BYTES;
        wait_for(&pipeline.empty[ring.stage], ring.parity ^ 1);
        arrive_expecting(filled, Tile::STAGE_BYTES - (both ? 0 : Tile::BLOCK_BYTES));
        copy_pixels(stage, images, filled, first_input + first.channel, x, y, place.image, tap_offset(g.x, first.x),
                    tap_offset(g.y, first.y));
        if (both) {
          copy_pixels(stage + Tile::BLOCK_BYTES, images, filled, first_input + second.channel, x, y, place.image,
                      tap_offset(g.x, second.x), tap_offset(g.y, second.y));
        }
#pragma unroll
        for (int i = 0; i < COLUMNS / BLOCK_CHANNELS; ++i) {
          copy_box(stage + Tile::A_BYTES + i * Tile::BLOCK_BYTES, gradients, filled, output + i * BLOCK_CHANNELS,
                   position, 0);
        }
      }
    }
    return;
  }

  take_registers<232>();
  const int group = thread / WARPGROUP;
  for (unsigned item = blockIdx.x; item < items; item += gridDim.x) {
    const int slice = g.order.slice(item), block = g.order.block(item) + group, output = g.order.output(item);
    const int steps = steps_of(g.range(slice), BLOCK_POSITIONS);
    if (block >= g.blocks.count) {
      skip_steps(steps, lane, pipeline, ring);
      continue;
    }
    float sums[COLUMNS / 2];
    sum_steps<Tile, true>(sums, steps, memory, group, lane, pipeline, ring, T{});

    // A warp stores eight neighbouring inputs of four outputs at once, 32 bytes of each.
    const Tap tap = block_at(g.blocks, block);
    const long long depth = weight_offset(c, {0, 0, 0}, 1);
    const Spot corner = spot_of_sum(thread % WARPGROUP, 0);
    const int inputs = c.inputs - tap.channel - corner.row, outputs = c.outputs - output - corner.column;
    float* const own = parts +
                       static_cast<long long>(slice * static_cast<int>(gridDim.z) + blockIdx.z) * c.outputs * depth +
                       weight_offset(c, tap, output + corner.column) + corner.row;
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; ++i) {
      const Spot at = spot_of_sum(0, i);  // beside the corner
      if (at.row < inputs && at.column < outputs) own[at.column * depth + at.row] = sums[i];
    }
  }
#else
  asm volatile("trap;");  // built for another architecture, where it is not to be launched
#endif
}

}  // namespace ulpgrad
