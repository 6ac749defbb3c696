// What kernels on the warp groups of sm_90 share: the stages of a tile, barriers between the thread that has them
// filled and the two groups that multiply, and the loop of these.
#pragma once

#include "bulk_copy.cuh"
#include "conv_box.cuh"
#include "warpgroup.cuh"

namespace ulpgrad {

// A tile of ROWS x COLUMNS results in steps of DEPTH; a stage has what A and B are in one step, each in blocks of 64
// lines of 64 values. One block of A is a group's.
template <int WIDTH, int COUNT>
struct GroupTile {
  static constexpr int GROUPS = 2, ROWS = GROUPS * GROUP_LINES, COLUMNS = WIDTH, DEPTH = LINE / 2, STAGES = COUNT;
  static constexpr int BLOCK_BYTES = GROUP_LINES * LINE;
  static constexpr int A_BYTES = ROWS * LINE, B_BYTES = COLUMNS * LINE, STAGE_BYTES = A_BYTES + B_BYTES;
  static constexpr int WORKERS = GROUPS * WARPGROUP, THREADS = WORKERS + WARPGROUP;  // of the last group, one thread
  static constexpr int BYTES = STAGES * STAGE_BYTES;
};

template <int STAGES>
struct Pipeline {
  Mbarrier filled[STAGES], empty[STAGES];
};

// By one thread; the others see them after a barrier of the block.
template <int STAGES>
__device__ inline void init_pipeline(Pipeline<STAGES>& pipeline, int warps) {
  for (int i = 0; i < STAGES; ++i) {
    init_barrier(&pipeline.filled[i], 1);
    init_barrier(&pipeline.empty[i], warps);
  }
  show_barriers();
}

// A group's products of so many steps, at least one, as they arrive. ACROSS: of operands whose lines are steps.
template <class Tile, bool ACROSS, class T>
__device__ inline void sum_steps(float (&sums)[Tile::COLUMNS / 2], int steps, const unsigned char* memory, int group,
                                 int lane, Pipeline<Tile::STAGES>& pipeline, Ring<Tile::STAGES>& ring, T) {
  int before = 0;
  for (int step = 0; step < steps; ++step) {
    const unsigned stage = shared_address(memory + ring.stage * Tile::STAGE_BYTES);
    const unsigned long long a = operand_descriptor<ACROSS>(stage + group * Tile::BLOCK_BYTES);
    const unsigned long long b = operand_descriptor<ACROSS>(stage + Tile::A_BYTES);
    wait_for(&pipeline.filled[ring.stage], ring.parity);
    open_products();
#pragma unroll
    for (int k = 0; k < Tile::DEPTH; k += 16) {
      begin_products<ACROSS>(sums, behind<ACROSS>(a, k), behind<ACROSS>(b, k), step + k > 0, T{});
    }
    close_products();
    wait_for_products<1>();  // those of the step before: its stage may be filled again
    if (step > 0 && lane == 0) arrive(&pipeline.empty[before]);
    before = ring.stage;
    ring.next();
  }
  wait_for_products<0>();
  hold(sums);
  if (lane == 0) arrive(&pipeline.empty[before]);
}

// For a group that has no part in these steps.
template <int STAGES>
__device__ inline void skip_steps(int steps, int lane, Pipeline<STAGES>& pipeline, Ring<STAGES>& ring) {
  for (int step = 0; step < steps; ++step, ring.next()) {
    wait_for(&pipeline.filled[ring.stage], ring.parity);
    if (lane == 0) arrive(&pipeline.empty[ring.stage]);
  }
}

}  // namespace ulpgrad
