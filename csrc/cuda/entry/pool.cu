#include "../pool_adaptive.cu"
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
      ULPGRAD_ENTRY(adaptive_max_pool<float>),
      ULPGRAD_ENTRY(adaptive_max_pool<double>),
      ULPGRAD_ENTRY(adaptive_max_pool<Float16>),
      ULPGRAD_ENTRY(adaptive_max_pool<Bfloat16>),
      ULPGRAD_ENTRY(adaptive_avg_pool<float>),
      ULPGRAD_ENTRY(adaptive_avg_pool<double>),
      ULPGRAD_ENTRY(adaptive_avg_pool<Float16>),
      ULPGRAD_ENTRY(adaptive_avg_pool<Bfloat16>),
      ULPGRAD_ENTRY(adaptive_avg_pool_gradient<float>),
      ULPGRAD_ENTRY(adaptive_avg_pool_gradient<double>),
      ULPGRAD_ENTRY(adaptive_avg_pool_gradient<Float16>),
      ULPGRAD_ENTRY(adaptive_avg_pool_gradient<Bfloat16>),
      ULPGRAD_ENTRY(avg_pool_runs<float>),
      ULPGRAD_ENTRY(avg_pool_runs<double>),
      ULPGRAD_ENTRY(avg_pool_runs<Float16>),
      ULPGRAD_ENTRY(avg_pool_runs<Bfloat16>),
  };
}

}  // namespace ulpgrad::cuda
