#include "../matmul_matrix.cu"
#include "../matmul_naive.cu"
#include "../matmul_registers.cu"
#include "../matmul_tiles.cu"
#include "table.h"

namespace ulpgrad::cuda {

std::vector<Entry> matmul_entries() {
  return {
      ULPGRAD_ENTRY(matmul_matrix<Float16, false, false>),
      ULPGRAD_ENTRY(matmul_matrix<Float16, false, true>),
      ULPGRAD_ENTRY(matmul_matrix<Float16, true, false>),
      ULPGRAD_ENTRY(matmul_matrix<Float16, true, true>),
      ULPGRAD_ENTRY(matmul_matrix<Bfloat16, false, false>),
      ULPGRAD_ENTRY(matmul_matrix<Bfloat16, false, true>),
      ULPGRAD_ENTRY(matmul_matrix<Bfloat16, true, false>),
      ULPGRAD_ENTRY(matmul_matrix<Bfloat16, true, true>),
      ULPGRAD_ENTRY(matmul_naive<float>),
      ULPGRAD_ENTRY(matmul_naive<unsigned char>),
      ULPGRAD_ENTRY(matmul_naive<unsigned short>),
      ULPGRAD_ENTRY(matmul_naive<unsigned>),
      ULPGRAD_ENTRY(matmul_naive<unsigned long long>),
      ULPGRAD_ENTRY(matmul_naive<double>),
      ULPGRAD_ENTRY(matmul_naive<Float16>),
      ULPGRAD_ENTRY(matmul_naive<Bfloat16>),
      ULPGRAD_ENTRY(matmul_registers<float, 8>),
      ULPGRAD_ENTRY(matmul_registers<float, 4>),
      ULPGRAD_ENTRY(matmul_registers<unsigned char, 4>),
      ULPGRAD_ENTRY(matmul_registers<unsigned short, 4>),
      ULPGRAD_ENTRY(matmul_registers<unsigned, 4>),
      ULPGRAD_ENTRY(matmul_registers<unsigned long long, 4>),
      ULPGRAD_ENTRY(matmul_registers<double, 4>),
      ULPGRAD_ENTRY(matmul_registers<Float16, 8>),
      ULPGRAD_ENTRY(matmul_registers<Float16, 4>),
      ULPGRAD_ENTRY(matmul_registers<Bfloat16, 8>),
      ULPGRAD_ENTRY(matmul_registers<Bfloat16, 4>),
      ULPGRAD_ENTRY(matmul_tiles<float>),
      ULPGRAD_ENTRY(matmul_tiles<unsigned char>),
      ULPGRAD_ENTRY(matmul_tiles<unsigned short>),
      ULPGRAD_ENTRY(matmul_tiles<unsigned>),
      ULPGRAD_ENTRY(matmul_tiles<unsigned long long>),
      ULPGRAD_ENTRY(matmul_tiles<double>),
      ULPGRAD_ENTRY(matmul_tiles<Float16>),
      ULPGRAD_ENTRY(matmul_tiles<Bfloat16>),
  };
}

}  // namespace ulpgrad::cuda
