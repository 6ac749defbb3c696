#include "../conv_direct.cu"
#include "../conv_integer.cu"
#include "../conv_lay.cu"
#include "../conv_matrix.cu"
#include "../conv_registers.cu"
#include "../conv_tiles.cu"
#include "../conv_unfold.cu"
#include "../conv_warpgroup.cu"
#include "../conv_weight_matrix.cu"
#include "../conv_weight_registers.cu"
#include "../conv_weight_sum.cu"
#include "../conv_weight_warpgroup.cu"
#include "../conv_winograd.cu"
#include "table.h"

namespace ulpgrad::cuda {

std::vector<Entry> conv_entries() {
  return {
      ULPGRAD_ENTRY(conv_forward_direct<float>),
      ULPGRAD_ENTRY(conv_forward_direct<double>),
      ULPGRAD_ENTRY(conv_forward_direct<Float16>),
      ULPGRAD_ENTRY(conv_forward_direct<Bfloat16>),
      ULPGRAD_ENTRY(conv_input_gradient_direct<float>),
      ULPGRAD_ENTRY(conv_input_gradient_direct<double>),
      ULPGRAD_ENTRY(conv_input_gradient_direct<Float16>),
      ULPGRAD_ENTRY(conv_input_gradient_direct<Bfloat16>),
      ULPGRAD_ENTRY(conv_weight_gradient_direct<float>),
      ULPGRAD_ENTRY(conv_weight_gradient_direct<double>),
      ULPGRAD_ENTRY(conv_weight_gradient_direct<Float16>),
      ULPGRAD_ENTRY(conv_weight_gradient_direct<Bfloat16>),
      ULPGRAD_ENTRY(conv_integer<64>),
      ULPGRAD_ENTRY(conv_integer<128>),
      ULPGRAD_ENTRY(lay_channels_last<unsigned short, 8>),
      ULPGRAD_ENTRY(lay_channels_last<unsigned short, 64>),
      ULPGRAD_ENTRY(lay_channels_last<unsigned, 8>),
      ULPGRAD_ENTRY(lay_channels_last<unsigned, 64>),
      ULPGRAD_ENTRY(conv_matrix<float, false, 64>),
      ULPGRAD_ENTRY(conv_matrix<float, false, 128>),
      ULPGRAD_ENTRY(conv_matrix<Float16, false, 64>),
      ULPGRAD_ENTRY(conv_matrix<Float16, false, 128>),
      ULPGRAD_ENTRY(conv_matrix<Bfloat16, false, 64>),
      ULPGRAD_ENTRY(conv_matrix<Bfloat16, false, 128>),
      ULPGRAD_ENTRY(conv_matrix<float, true, 64>),
      ULPGRAD_ENTRY(conv_matrix<float, true, 128>),
      ULPGRAD_ENTRY(conv_matrix<Float16, true, 64>),
      ULPGRAD_ENTRY(conv_matrix<Float16, true, 128>),
      ULPGRAD_ENTRY(conv_matrix<Bfloat16, true, 64>),
      ULPGRAD_ENTRY(conv_matrix<Bfloat16, true, 128>),
      ULPGRAD_ENTRY(conv_registers<float, false>),
      ULPGRAD_ENTRY(conv_registers<double, false>),
      ULPGRAD_ENTRY(conv_registers<Float16, false>),
      ULPGRAD_ENTRY(conv_registers<Bfloat16, false>),
      ULPGRAD_ENTRY(conv_registers<float, true>),
      ULPGRAD_ENTRY(conv_registers<double, true>),
      ULPGRAD_ENTRY(conv_registers<Float16, true>),
      ULPGRAD_ENTRY(conv_registers<Bfloat16, true>),
      ULPGRAD_ENTRY(conv_tiles<float, false>),
      ULPGRAD_ENTRY(conv_tiles<double, false>),
      ULPGRAD_ENTRY(conv_tiles<Float16, false>),
      ULPGRAD_ENTRY(conv_tiles<Bfloat16, false>),
      ULPGRAD_ENTRY(conv_tiles<float, true>),
      ULPGRAD_ENTRY(conv_tiles<double, true>),
      ULPGRAD_ENTRY(conv_tiles<Float16, true>),
      ULPGRAD_ENTRY(conv_tiles<Bfloat16, true>),
      ULPGRAD_ENTRY(conv_unfold<float>),
      ULPGRAD_ENTRY(conv_unfold<double>),
      ULPGRAD_ENTRY(conv_finish<float>),
      ULPGRAD_ENTRY(conv_finish<double>),
      ULPGRAD_ENTRY(conv_warpgroup<Float16, false, 64>),
      ULPGRAD_ENTRY(conv_warpgroup<Float16, false, 128>),
      ULPGRAD_ENTRY(conv_warpgroup<Float16, false, 256>),
      ULPGRAD_ENTRY(conv_warpgroup<Float16, true, 64>),
      ULPGRAD_ENTRY(conv_warpgroup<Float16, true, 128>),
      ULPGRAD_ENTRY(conv_warpgroup<Float16, true, 256>),
      ULPGRAD_ENTRY(conv_warpgroup<Bfloat16, false, 64>),
      ULPGRAD_ENTRY(conv_warpgroup<Bfloat16, false, 128>),
      ULPGRAD_ENTRY(conv_warpgroup<Bfloat16, false, 256>),
      ULPGRAD_ENTRY(conv_warpgroup<Bfloat16, true, 64>),
      ULPGRAD_ENTRY(conv_warpgroup<Bfloat16, true, 128>),
      ULPGRAD_ENTRY(conv_warpgroup<Bfloat16, true, 256>),
      ULPGRAD_ENTRY(winograd_images<float>),
      ULPGRAD_ENTRY(winograd_filters<float>),
      ULPGRAD_ENTRY(winograd_results<float>),
      ULPGRAD_ENTRY(conv_weight_matrix<float, 64>),
      ULPGRAD_ENTRY(conv_weight_matrix<float, 128>),
      ULPGRAD_ENTRY(conv_weight_matrix<Float16, 64>),
      ULPGRAD_ENTRY(conv_weight_matrix<Float16, 128>),
      ULPGRAD_ENTRY(conv_weight_matrix<Bfloat16, 64>),
      ULPGRAD_ENTRY(conv_weight_matrix<Bfloat16, 128>),
      ULPGRAD_ENTRY(conv_weight_registers<float>),
      ULPGRAD_ENTRY(conv_weight_registers<double>),
      ULPGRAD_ENTRY(conv_weight_registers<Float16>),
      ULPGRAD_ENTRY(conv_weight_registers<Bfloat16>),
      ULPGRAD_ENTRY(conv_weight_sum<float>),
      ULPGRAD_ENTRY(conv_weight_sum<double>),
      ULPGRAD_ENTRY(conv_weight_sum<Float16>),
      ULPGRAD_ENTRY(conv_weight_sum<Bfloat16>),
      ULPGRAD_ENTRY(conv_weight_warpgroup<Float16, 64>),
      ULPGRAD_ENTRY(conv_weight_warpgroup<Float16, 128>),
      ULPGRAD_ENTRY(conv_weight_warpgroup<Float16, 256>),
      ULPGRAD_ENTRY(conv_weight_warpgroup<Bfloat16, 64>),
      ULPGRAD_ENTRY(conv_weight_warpgroup<Bfloat16, 128>),
      ULPGRAD_ENTRY(conv_weight_warpgroup<Bfloat16, 256>),
  };
}

}  // namespace ulpgrad::cuda
