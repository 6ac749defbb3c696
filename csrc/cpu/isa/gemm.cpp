// Blocked matrix multiplication: panels of A and B are packed to fit the caches, tiles of C to fit the registers
// (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008).
#include "gemm.h"

#include <algorithm>

#include "gemm_product.h"
#include "gemm_vector.h"

namespace ulpgrad::ULPGRAD_ISA {

// Multiply-adds that make one more thread worth its start.
constexpr int64_t kGrain = int64_t{1} << 19;

template <typename Math>
static void gemm(const Gemm<typename Math::Value>& g) {
  if (g.m <= 0 || g.n <= 0) return;
  if ((g.m == 1 || g.n == 1) && multiply_vector(g)) return;
  if (multiply_few(g)) return;
  Product<Math>(g, g.threaded ? threads_for(g.m * g.n * std::max<int64_t>(1, g.k), kGrain) : 1).run();
}

#if ULPGRAD_ISA_LEVEL == 2
constexpr auto by_dots = gemm<Pairs>;
#else
constexpr void (*by_dots)(const Gemm<Bfloat16>&) = nullptr;
#endif

extern const GemmTable gemm_table = {
    gemm<Singles<float>>, gemm<Singles<double>>, gemm<Singles<Float16>>, gemm<Singles<Bfloat16>>, by_dots,
};

}  // namespace ulpgrad::ULPGRAD_ISA
