// The copy unit of sm_90 (TMA): one thread asks for a whole tile by its coordinates, and a barrier in shared memory
// counts the bytes that have arrived. The host does as NVIDIA documents the unit: see bulk_copy_host.h.
#pragma once

#include "matrix_unit.cuh"

namespace ulpgrad {

// What the driver makes of an array's address, sizes, strides and box (kernels/cuda_tensor_map.py): no one's to read.
struct alignas(64) TensorMap {
  unsigned long long words[16];
};

// A barrier of phases: one is complete when all have arrived and all bytes that they announced are there. It lies in
// shared memory.
struct Mbarrier {
  unsigned long long state;
};

}  // namespace ulpgrad

#ifndef __CUDACC__
#include "bulk_copy_host.h"
#endif

namespace ulpgrad {

#ifdef __CUDACC__

// Longer than any wait can be, in cycles (some seconds): what waits so long would wait forever, and ends the kernel
// with an error instead.
constexpr long long PATIENCE = 1ll << 33;

__device__ inline void init_barrier(Mbarrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Shows barriers that were just made to the copy unit. A barrier of the block shows them to its threads.
__device__ inline void show_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void arrive(Mbarrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Arrives, and announces bytes that copies will bring.
__device__ inline void arrive_expecting(Mbarrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

__device__ inline bool has_passed(Mbarrier* barrier, unsigned parity) {
  unsigned passed;
  asm volatile(
      "{\n.reg .pred passed;\nmbarrier.try_wait.parity.shared::cta.b64 passed, [%1], %2;\n"
      "selp.u32 %0, 1, 0, passed;\n}"
      : "=r"(passed)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return passed;
}

// Until the phase of this parity is complete; of a new barrier, that of parity 1 counts as complete.
__device__ inline void wait_for(Mbarrier* barrier, unsigned parity) {
  if (has_passed(barrier, parity)) return;
  const long long start = clock64();
  while (!has_passed(barrier, parity)) {
    if (clock64() - start > PATIENCE) asm volatile("trap;");
  }
}

__device__ inline void prefetch(const TensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map)); }

// A tile of pixels under one tap: from base coordinates on, with the tap's offset (im2col).
__device__ inline void copy_pixels(void* to, const TensorMap& map, Mbarrier* barrier, int channel, int x, int y,
                                   int image, int offset_x, int offset_y) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(channel), "r"(x), "r"(y), "r"(image),
      "h"(static_cast<unsigned short>(offset_x)), "h"(static_cast<unsigned short>(offset_y))
      : "memory");
}

// A box of an array of three axes, the fastest first.
__device__ inline void copy_box(void* to, const TensorMap& map, Mbarrier* barrier, int first, int second, int third) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(first), "r"(second), "r"(third)
      : "memory");
}

#else

inline void init_barrier(Mbarrier* barrier, int arrivals) { host::init(barrier, arrivals); }
inline void show_barriers() {}
inline void arrive(Mbarrier* barrier) { host::arrive(barrier, 0); }
inline void arrive_expecting(Mbarrier* barrier, int bytes) { host::arrive(barrier, bytes); }
inline void wait_for(Mbarrier* barrier, unsigned parity) { host::wait_for(barrier, parity); }
inline void prefetch(const TensorMap&) {}

inline void copy_pixels(void* to, const TensorMap& map, Mbarrier* barrier, int channel, int x, int y, int image,
                        int offset_x, int offset_y) {
  host::copy_pixels(to, map, barrier, {channel, x, y, image}, {offset_x, offset_y});
}

inline void copy_box(void* to, const TensorMap& map, Mbarrier* barrier, int first, int second, int third) {
  host::copy_box(to, map, barrier, {first, second, third, 0});
}

#endif

}  // namespace ulpgrad
