// The warp's matrix unit of sm_80 and later: which lane holds what, how tiles come from shared memory, and asynchronous
// copies there. The host runs the same kernels: its threads exchange what a warp's lanes would, and copies stay away
// until they are waited for.
//
// A warp multiplies A (16 x 16) by B (16 x 8) onto C (16 x 8, float). Fragments are a lane's parts of them; an element
// of A or B is half of a 32-bit register, of C a register. (PTX ISA, "Matrix Fragments for mma.m16n8k16".)
#pragma once

#include "device.cuh"
#ifndef __CUDACC__
#include "matrix_unit_host.h"
#endif

namespace ulpgrad {

constexpr int WARP = 32;

struct Spot {
  int row, column;
};

// Where the i-th element of a lane's fragment stands: 8 of A, 4 of B (rows are what is summed over), 4 of C.
__host__ __device__ constexpr Spot spot_of_a(int lane, int i) {
  return {lane / 4 + i / 2 % 2 * 8, lane % 4 * 2 + i % 2 + i / 4 * 8};
}

__host__ __device__ constexpr Spot spot_of_b(int lane, int i) { return {lane % 4 * 2 + i % 2 + i / 2 * 8, lane / 4}; }

__host__ __device__ constexpr Spot spot_of_c(int lane, int i) { return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2}; }

// What a lane gets of an 8 x 8 matrix that the warp loads: two elements, neighbours in a row, or in a column if
// transposed.
__host__ __device__ constexpr Spot spot_of_load(int lane, int i, bool transposed) {
  return transposed ? Spot{lane % 4 * 2 + i, lane / 4} : Spot{lane / 4, lane % 4 * 2 + i};
}

// Four matrices are loaded at once; lane l gives the address of row l % 8 of matrix l / 8. For each kind of tile in
// shared memory, the row of the tile and the chunk of 8 elements in it where that address lies, so that a lane's four
// registers are A (16 x 16) or two neighbouring B (16 x 8 each).
__host__ __device__ constexpr Spot chunk_of_a(int lane) { return {lane % 16, lane / 16}; }  // rows of A

__host__ __device__ constexpr Spot chunk_of_a_transposed(int lane) { return {lane % 8 + lane / 16 * 8, lane / 8 % 2}; }

__host__ __device__ constexpr Spot chunk_of_b(int lane) {
  return {lane % 16, lane / 16};
}  // rows of B: load transposed

__host__ __device__ constexpr Spot chunk_of_b_transposed(int lane) { return {lane % 8 + lane / 16 * 8, lane / 8 % 2}; }

#ifdef __CUDACC__

// A barrier for the lanes of a warp: what they wrote before, all of them see after.
__device__ inline void wait_for_lanes() { __syncwarp(); }

__device__ inline unsigned shared_address(const void* place) {
  return static_cast<unsigned>(__cvta_generic_to_shared(place));
}

// 16 bytes from global to shared memory, or zeros. They are there after a wait for their group, for this thread; for
// others after a barrier.
__device__ inline void copy_async(void* to, const void* from, bool is_there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(is_there ? 16 : 0)
               : "memory");
}

__device__ inline void close_copy_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all but the last `OPEN` groups have arrived.
template <int OPEN>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(OPEN) : "memory");
}

template <bool TRANSPOSED>
__device__ inline void load_matrices(unsigned (&registers)[4], const void* row) {
  if constexpr (TRANSPOSED) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], Float16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], Bfloat16) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// C += A * B for M x N of them. `T` says what halves of a register are.
template <class T, int M, int N>
__device__ inline void multiply_add_all(float (&c)[M][N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][2]) {
#pragma unroll
  for (int i = 0; i < M; ++i) {
#pragma unroll
    for (int j = 0; j < N; ++j) multiply_add(c[i][j], a[i], b[j], T{});
  }
}

#else

inline void wait_for_lanes() { host::wait_for_warp(); }

inline void copy_async(void* to, const void* from, bool is_there) { host::copies_of_thread().add(to, from, is_there); }

inline void close_copy_group() { host::copies_of_thread().close(); }

template <int OPEN>
void wait_for_copies() {
  host::copies_of_thread().wait(OPEN);
}

template <bool TRANSPOSED>
void load_matrices(unsigned (&registers)[4], const void* row) {
  const host::Lanes<const void*> rows(row);
  for (int matrix = 0; matrix < 4; ++matrix) {
    unsigned short halves[2];
    for (int i = 0; i < 2; ++i) {
      const Spot spot = spot_of_load(host::lane(), i, TRANSPOSED);
      halves[i] = static_cast<const unsigned short*>(rows[matrix * 8 + spot.row])[spot.column];
    }
    registers[matrix] = halves[0] | static_cast<unsigned>(halves[1]) << 16;
  }
}

template <class T, int M, int N>
void multiply_add_all(float (&c)[M][N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][2]) {
  struct Fragments {
    T a[M][8], b[N][4];
  } own;
  std::memcpy(own.a, a, sizeof own.a);
  std::memcpy(own.b, b, sizeof own.b);
  const host::Lanes<Fragments> lanes(own);
  static const auto a_held = host::holders<16, 16, 8>(spot_of_a);
  static const auto b_held = host::holders<16, 8, 4>(spot_of_b);
  for (int e = 0; e < 4; ++e) {
    const Spot spot = spot_of_c(host::lane(), e);
    for (int k = 0; k < 16; ++k) {
      const host::Holder left = a_held[spot.row][k], right = b_held[k][spot.column];
      for (int i = 0; i < M; ++i) {
        const float value = widen(lanes[left.lane].a[i][left.element]);
        for (int j = 0; j < N; ++j) c[i][j][e] += value * widen(lanes[right.lane].b[j][right.element]);
      }
    }
  }
}

#endif

}  // namespace ulpgrad
