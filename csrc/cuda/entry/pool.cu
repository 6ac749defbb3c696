#include "../pool_direct.cu"
#include "../pool_scatter.cu"
#include "table.h"

namespace ulpgrad::cuda {

std::vector<Entry> pool_entries() {
  return {
      ULPGRAD_ENTRY(max_pool<float>),
      ULPGRAD_ENTRY(max_pool<double>),
      ULPGRAD_ENTRY(max_pool<Float16>),
      ULPGRAD_ENTRY(max_pool<Bfloat16>),
      ULPGRAD_ENTRY(avg_pool<float>),
      ULPGRAD_ENTRY(avg_pool<double>),
      ULPGRAD_ENTRY(avg_pool<Float16>),
      ULPGRAD_ENTRY(avg_pool<Bfloat16>),
      ULPGRAD_ENTRY(avg_pool_gradient<float>),
      ULPGRAD_ENTRY(avg_pool_gradient<double>),
      ULPGRAD_ENTRY(avg_pool_gradient<Float16>),
      ULPGRAD_ENTRY(avg_pool_gradient<Bfloat16>),
      ULPGRAD_ENTRY(max_pool_gradient<float>),
      ULPGRAD_ENTRY(max_pool_gradient<double>),
  };
}

}  // namespace ulpgrad::cuda
