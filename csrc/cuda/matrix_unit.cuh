// The warp's matrix unit of sm_80 and later: which lane holds what, how tiles come from shared memory, and asynchronous
// copies there. The host runs the same kernels: its threads exchange what a warp's lanes would, and copies stay away
// until they are waited for.
//
// A warp multiplies A (16 x K) by B (K x 8) onto C (16 x 8), where K values are 32 bytes: 16 of 16 bits, 8 of float32,
// 32 bytes. Fragments are a lane's parts of them: of A four 32-bit registers and of B two, each with PER neighbours
// along K; an element of C is a register. (PTX ISA, "Matrix Fragments for mma.m16n8k16", and likewise for m16n8k8 and
// m16n8k32.)
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

// Where the i-th element of a lane's fragment stands: 4 * PER of A, 2 * PER of B (rows are what is summed over), 4 of
// C.
template <int PER>
__host__ __device__ constexpr Spot spot_of_a(int lane, int i) {
  return {lane / 4 + i / PER % 2 * 8, lane % 4 * PER + i % PER + i / PER / 2 * PER * 4};
}

template <int PER>
__host__ __device__ constexpr Spot spot_of_b(int lane, int i) {
  return {lane % 4 * PER + i % PER + i / PER * PER * 4, lane / 4};
}

__host__ __device__ constexpr Spot spot_of_c(int lane, int i) { return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2}; }

// What a lane gets of an 8 x 8 matrix that the warp loads: two elements, neighbours in a row, or in a column if
// transposed.
__host__ __device__ constexpr Spot spot_of_load(int lane, int i, bool transposed) {
  return transposed ? Spot{lane % 4 * 2 + i, lane / 4} : Spot{lane / 4, lane % 4 * 2 + i};
}

// Four matrices are loaded at once; lane l gives the address of row l % 8 of matrix l / 8. For each kind of tile in
// shared memory, the row of the tile and the chunk of 16 bytes in it where that address lies, so that a lane's four
// registers are A (16 x K) or two neighbouring B (K x 8 each). Transposed loads are for elements of 16 bits.
__host__ __device__ constexpr Spot chunk_of_a(int lane) { return {lane % 16, lane / 16}; }  // rows of A

__host__ __device__ constexpr Spot chunk_of_a_transposed(int lane) { return {lane % 8 + lane / 16 * 8, lane / 8 % 2}; }

__host__ __device__ constexpr Spot chunk_of_b(int lane) {
  return {lane % 16, lane / 16};
}  // rows of B: load transposed

__host__ __device__ constexpr Spot chunk_of_b_transposed(int lane) { return {lane % 8 + lane / 16 * 8, lane / 8 % 2}; }

// A byte of an integer. Whether bytes have a sign is said where they are multiplied; sums wrap.
struct Byte {
  unsigned char bits;
};

struct Signs {
  bool a, b;
};

// What the units sum products of T in.
template <class T>
struct UnitSumOf {
  using type = float;
};
template <>
struct UnitSumOf<Byte> {
  using type = int;
};
template <class T>
using UnitSum = typename UnitSumOf<T>::type;

// float32 in two parts of 11 bits, which the units multiply exactly (TF32). What is not finite stays so, if perhaps
// another value, and what rounds to infinity becomes it: sums of those are not finite, and are made again by the
// definition.
struct Tf32Pair {
  unsigned big, small;
};

// To nearest, ties away from zero, as cvt.rna.tf32.f32 does.
__device__ inline unsigned rounded_to_tf32(float value) {
  const unsigned bits = __float_as_uint(value);
  return ((bits & 0x7fffffffu) < 0x7f800000u ? bits + 0x1000u : bits) & 0xffffe000u;
}

__device__ inline Tf32Pair split_in_tf32(float value) {
  const unsigned big = rounded_to_tf32(value);
  return {big, rounded_to_tf32(value - __uint_as_float(big))};
}

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

__device__ inline void multiply_add_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// C += A * B for M x N of them. `T` says what registers hold.
template <class T, int M, int N>
__device__ inline void multiply_add_all(float (&c)[M][N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][2]) {
  if constexpr (sizeof(T) == 4) {
    // The three larger products of two parts each, the smallest first. The units cut off what they add to long sums:
    // these begin anew, and are added by rounding.
    unsigned big_b[N][2], small_b[N][2];
#pragma unroll
    for (int j = 0; j < N; ++j) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const Tf32Pair pair = split_in_tf32(__uint_as_float(b[j][r]));
        big_b[j][r] = pair.big, small_b[j][r] = pair.small;
      }
    }
#pragma unroll
    for (int i = 0; i < M; ++i) {
      unsigned big_a[4], small_a[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const Tf32Pair pair = split_in_tf32(__uint_as_float(a[i][r]));
        big_a[r] = pair.big, small_a[r] = pair.small;
      }
#pragma unroll
      for (int j = 0; j < N; ++j) {
        float sums[4] = {};
        multiply_add_tf32(sums, small_a, big_b[j]);
        multiply_add_tf32(sums, big_a, small_b[j]);
        multiply_add_tf32(sums, big_a, big_b[j]);
#pragma unroll
        for (int e = 0; e < 4; ++e) c[i][j][e] += sums[e];
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < M; ++i) {
#pragma unroll
      for (int j = 0; j < N; ++j) multiply_add(c[i][j], a[i], b[j], T{});
    }
  }
}

#define ULPGRAD_MULTIPLY_ADD_BYTES(a_kind, b_kind)                 \
  asm("mma.sync.aligned.m16n8k32.row.col.s32." a_kind "." b_kind   \
      ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])             \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

template <bool A_SIGNED, bool B_SIGNED>
__device__ inline void multiply_add_bytes(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  if constexpr (A_SIGNED && B_SIGNED) {
    ULPGRAD_MULTIPLY_ADD_BYTES("s8", "s8");
  } else if constexpr (A_SIGNED) {
    ULPGRAD_MULTIPLY_ADD_BYTES("s8", "u8");
  } else if constexpr (B_SIGNED) {
    ULPGRAD_MULTIPLY_ADD_BYTES("u8", "s8");
  } else {
    ULPGRAD_MULTIPLY_ADD_BYTES("u8", "u8");
  }
}

#undef ULPGRAD_MULTIPLY_ADD_BYTES

template <bool A_SIGNED, bool B_SIGNED, int M, int N>
__device__ inline void multiply_add_all_bytes(int (&c)[M][N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][2]) {
#pragma unroll
  for (int i = 0; i < M; ++i) {
#pragma unroll
    for (int j = 0; j < N; ++j) multiply_add_bytes<A_SIGNED, B_SIGNED>(c[i][j], a[i], b[j]);
  }
}

// The same of bytes. All threads have the same signs.
template <class T, int M, int N>
__device__ inline void multiply_add_all(int (&c)[M][N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][2],
                                        Signs signs) {
  if (signs.a && signs.b) {
    multiply_add_all_bytes<true, true>(c, a, b);
  } else if (signs.a) {
    multiply_add_all_bytes<true, false>(c, a, b);
  } else if (signs.b) {
    multiply_add_all_bytes<false, true>(c, a, b);
  } else {
    multiply_add_all_bytes<false, false>(c, a, b);
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

// Part of a sum: a product as the units make it.
inline void add_product(float& sum, Float16 a, Float16 b) { sum += widen(a) * widen(b); }
inline void add_product(float& sum, Bfloat16 a, Bfloat16 b) { sum += widen(a) * widen(b); }
inline void add_product(float& sum, float a, float b) {
  const Tf32Pair x = split_in_tf32(a), y = split_in_tf32(b);
  const auto product = [](unsigned u, unsigned v) { return __uint_as_float(u) * __uint_as_float(v); };
  sum += product(x.small, y.big) + product(x.big, y.small) + product(x.big, y.big);
}

inline void add_product(int& sum, Byte a, Byte b, Signs signs) {
  const auto value = [](Byte x, bool is_signed) { return is_signed ? static_cast<signed char>(x.bits) : int{x.bits}; };
  sum = static_cast<int>(static_cast<unsigned>(sum) + static_cast<unsigned>(value(a, signs.a) * value(b, signs.b)));
}

template <class T, int M, int N, class... How>
void multiply_add_all(UnitSum<T> (&c)[M][N][4], const unsigned (&a)[M][4], const unsigned (&b)[N][2], How... how) {
  constexpr int PER = 4 / sizeof(T), K = 8 * PER;
  struct Fragments {
    T a[M][4 * PER], b[N][2 * PER];
  } own;
  std::memcpy(own.a, a, sizeof own.a);
  std::memcpy(own.b, b, sizeof own.b);
  const host::Lanes<Fragments> lanes(own);
  static const auto a_held = host::holders<16, K, 4 * PER>(spot_of_a<PER>);
  static const auto b_held = host::holders<K, 8, 2 * PER>(spot_of_b<PER>);
  for (int e = 0; e < 4; ++e) {
    const Spot spot = spot_of_c(host::lane(), e);
    for (int k = 0; k < K; ++k) {
      const host::Holder left = a_held[spot.row][k], right = b_held[k][spot.column];
      for (int i = 0; i < M; ++i) {
        const T value = lanes[left.lane].a[i][left.element];
        for (int j = 0; j < N; ++j) add_product(c[i][j][e], value, lanes[right.lane].b[j][right.element], how...);
      }
    }
  }
}

#endif

}  // namespace ulpgrad
