// Attention in numbers as they are; 16-bit floats are widened to float32 block by block.
#include "attention.h"

#include "attention_backward.h"
#include "attention_forward.h"

namespace ulpgrad::ULPGRAD_ISA {

// What is smaller than this is left to exact arithmetic: products with it may count, and be subnormal.
constexpr uint16_t kTiny = 27 << 7;  // 2^-100, as bfloat16

static bool has_tiny(const AttentionRows& rows, int64_t count, int64_t size) {
  constexpr int64_t lanes = kLanes<uint16_t>;
  if (rows.row == size) size *= count, count = 1;
  const Vec<uint16_t> magnitude = broadcast<uint16_t>(0x7fff), one = broadcast<uint16_t>(1);
  const Vec<uint16_t> least_code = broadcast<uint16_t>(kTiny - 1);
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t* const row = &row_of<Bfloat16>(rows, i)->code;
    auto any = Vec<uint16_t>{} < Vec<uint16_t>{};
    uint16_t rest = 0;
    int64_t p = 0;
    for (; p + lanes <= size; p += lanes) any |= (load(row + p) & magnitude) - one < least_code;
    for (; p < size; ++p) rest |= static_cast<uint16_t>((row[p] & 0x7fff) - 1) < kTiny - 1;
    for (int64_t lane = 0; lane < lanes; ++lane) rest |= any[lane] != 0;
    if (rest) return true;
  }
  return false;
}

template <class Stored, typename T>
static constexpr AttentionKernels kernels_of() {
  return {forward<Stored, Numbers<T>>,        backward<Stored, Numbers<T>>,        add_parts<Stored, T>,
          forward_memory<Stored, Numbers<T>>, backward_memory<Stored, Numbers<T>>, values_memory<Stored, Numbers<T>>,
          pack_values<Stored, Numbers<T>>};
}

static constexpr AttentionKernels f32 = kernels_of<float, float>(), f64 = kernels_of<double, double>(),
                                  bf16 = kernels_of<Bfloat16, float>(), f16 = kernels_of<Float16, float>();

#if ULPGRAD_ISA_LEVEL == 2
extern const AttentionKernels attention_bf16_dots;
extern const AttentionTable attention_table = {&f32, &f64, &bf16, &f16, &attention_bf16_dots, has_tiny};
#else
extern const AttentionTable attention_table = {&f32, &f64, &bf16, &f16, nullptr, has_tiny};
#endif

}  // namespace ulpgrad::ULPGRAD_ISA
