// The matrix unit of sm_90 as a warp group has it (WGMMA): four warps multiply A (64 x 16) by B (16 x COLUMNS) of
// 16-bit floats, both of which the unit reads from shared memory by itself, onto float32 sums in their registers. It is
// asked for and waited for. The host does as NVIDIA documents the unit: see warpgroup_host.h.
//
// An operand's tile has lines of 128 bytes; eight lines are a group, and its chunks of 16 bytes are swizzled as the
// copy unit writes them. A line is 64 steps of what is summed over; or (ACROSS) lines are the steps, with 64 rows of A,
// or columns of B, side by side, and the next 64 lie a block of 64 such lines behind. (PTX ISA, "Asynchronous warpgroup
// level matrix instructions", K-major and MN-major layouts.)
#pragma once

#include "matrix_unit.cuh"

namespace ulpgrad {

constexpr int WARPGROUP = 128, GROUP_LINES = 64, LINE = 128;  // threads, lines of A, bytes of a line

// The descriptor of an operand's tile at an address in shared memory, a multiple of 1024 bytes, or of some steps behind
// its start: in bits 0 to 13 the address by 16; in 16 to 29 the distance between blocks by 16, which has no meaning
// where lines are not steps, and is to be 1; in 32 to 45 the distance between groups of eight lines by 16; in 62 and 63
// the pattern, 1 for that of 128 bytes.
template <bool ACROSS = false>
__host__ __device__ constexpr unsigned long long operand_descriptor(unsigned address) {
  constexpr unsigned long long BETWEEN = ACROSS ? GROUP_LINES * LINE / 16 : 1;
  return (address & 0x3ffffu) >> 4 | BETWEEN << 16 | 8ull * LINE / 16 << 32 | 1ull << 62;
}

// So many steps of 16 bits further; ACROSS, a multiple of eight.
template <bool ACROSS = false>
__host__ __device__ constexpr unsigned long long behind(unsigned long long descriptor, int steps) {
  return descriptor + static_cast<unsigned>(steps) * (ACROSS ? LINE : 2) / 16;
}

// Where the i-th of a thread's COLUMNS / 2 sums stands in the 64 x COLUMNS of the group: each warp has 16 rows, and of
// eight columns what a warp by itself would have.
__host__ __device__ constexpr Spot spot_of_sum(int thread, int i) {
  const Spot at = spot_of_c(thread % WARP, i % 4);
  return {thread / WARP * 16 + at.row, i / 4 * 8 + at.column};
}

}  // namespace ulpgrad

#ifndef __CUDACC__
#include "warpgroup_host.h"
#endif

namespace ulpgrad {

#ifdef __CUDACC__

// A group gives back all registers but so many of a thread, and another one takes up to so many.
template <int COUNT>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// Before the first products on sums that were touched otherwise.
__device__ inline void open_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ inline void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until all but the last OPEN closed groups of products are made.
template <int OPEN>
__device__ inline void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(OPEN) : "memory");
}

// Keeps the compiler from moving what is done with sums across.
template <int COUNT>
__device__ inline void hold(float (&sums)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// Names of sums in the text of an instruction, and the sums.
#define ULPGRAD_NAMES_32                                                                                           \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define ULPGRAD_NAMES_64                                                                                        \
  ULPGRAD_NAMES_32                                                                                              \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, " \
  "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define ULPGRAD_NAMES_128                                                                                        \
  ULPGRAD_NAMES_64                                                                                               \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, "  \
  "%85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, "    \
  "%105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, " \
  "%123, %124, %125, %126, %127"
#define ULPGRAD_SUMS_8(i)                                                                                     \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), \
      "+f"(c[i + 7])
#define ULPGRAD_SUMS_32(i) ULPGRAD_SUMS_8(i), ULPGRAD_SUMS_8(i + 8), ULPGRAD_SUMS_8(i + 16), ULPGRAD_SUMS_8(i + 24)
#define ULPGRAD_SUMS_64(i) ULPGRAD_SUMS_32(i), ULPGRAD_SUMS_32(i + 32)
#define ULPGRAD_SUMS_128(i) ULPGRAD_SUMS_64(i), ULPGRAD_SUMS_64(i + 64)

// c = a * b, or c += a * b. The products of a group follow each other; `add` is the same for all threads.
#define ULPGRAD_PRODUCTS(T, kind, columns, count, a_name, b_name, add_name, across_name)                              \
  template <bool ACROSS>                                                                                              \
  __device__ inline void begin_products(float (&c)[count], unsigned long long a, unsigned long long b, bool add, T) { \
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " add_name                                                     \
                 ", 0;\n"                                                                                             \
                 "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." kind "." kind " {" ULPGRAD_NAMES_##count     \
                 "}, " a_name ", " b_name ", add, 1, 1, " across_name ", " across_name ";\n}"                         \
                 : ULPGRAD_SUMS_##count(0)                                                                            \
                 : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(ACROSS ? 1 : 0));                                  \
  }
ULPGRAD_PRODUCTS(Float16, "f16", 64, 32, "%32", "%33", "%34", "%35")
ULPGRAD_PRODUCTS(Float16, "f16", 128, 64, "%64", "%65", "%66", "%67")
ULPGRAD_PRODUCTS(Float16, "f16", 256, 128, "%128", "%129", "%130", "%131")
ULPGRAD_PRODUCTS(Bfloat16, "bf16", 64, 32, "%32", "%33", "%34", "%35")
ULPGRAD_PRODUCTS(Bfloat16, "bf16", 128, 64, "%64", "%65", "%66", "%67")
ULPGRAD_PRODUCTS(Bfloat16, "bf16", 256, 128, "%128", "%129", "%130", "%131")
#undef ULPGRAD_PRODUCTS
#undef ULPGRAD_SUMS_128
#undef ULPGRAD_SUMS_64
#undef ULPGRAD_SUMS_32
#undef ULPGRAD_SUMS_8
#undef ULPGRAD_NAMES_128
#undef ULPGRAD_NAMES_64
#undef ULPGRAD_NAMES_32

#else

template <int COUNT>
void give_registers() {}

template <int COUNT>
void take_registers() {}

inline void open_products() {}
inline void close_products() { host::products_of_thread().close(); }

template <int OPEN>
void wait_for_products() {
  host::products_of_thread().wait(OPEN);
}

template <int COUNT>
void hold(float (&)[COUNT]) {}

template <bool ACROSS, int COUNT, class T>
void begin_products(float (&c)[COUNT], unsigned long long a, unsigned long long b, bool add, T) {
  host::products_of_thread().add([&c, a, b, add] { host::multiply<ACROSS, T>(c, a, b, add); });
}

// Where shared memory begins is address 0.
inline unsigned shared_address(const void* place) {
  return static_cast<unsigned>(static_cast<const unsigned char*>(place) - host::dynamic_shared());
}

#endif

}  // namespace ulpgrad
