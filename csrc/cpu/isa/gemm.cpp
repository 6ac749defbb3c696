// Blocked matrix multiplication: panels of A and B are packed to fit the caches, tiles of C to fit the registers
// (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008).
#include "gemm.h"

#include <algorithm>

#include "gemm_product.h"
#include "gemm_vector.h"

namespace ulpgrad::ULPGRAD_ISA {

// Multiply-adds that make one more thread worth its start.
constexpr int64_t kGrain = int64_t{1} << 18;

template <typename Math>
static void gemm(const Gemm<typename Math::Value>& g) {
  if (g.m <= 0 || g.n <= 0) return;
  if ((g.m == 1 || g.n == 1) && multiply_vector(g)) return;
  if (multiply_few(g)) return;
  Product<Math>(g, g.threaded ? threads_for(g.m * g.n * std::max<int64_t>(1, g.k), kGrain) : 1).run();
}

template <typename Math>
static void pack(const Gemm<typename Math::Value>& given, void* to) {
  Gemm<typename Math::Value> g = given;
  g.m = 1, g.packed = to;  // of any number of rows: panels of B are the same for all
  if (g.n > 0) Product<Math>(g, threads_for(g.n * g.k, kGrain)).pack(to);
}

template <typename Math>
constexpr GemmFunction<typename Math::Value> of() {
  return {gemm<Math>, Product<Math>::packed_bytes, pack<Math>};
}

extern const GemmTable gemm_table = {
    of<Singles<float>>(), of<Singles<double>>(), of<Singles<Float16>>(), of<Singles<Bfloat16>>(),
#if ULPGRAD_ISA_LEVEL == 2
    of<Pairs>(),
#else
    {},
#endif
};

}  // namespace ulpgrad::ULPGRAD_ISA
