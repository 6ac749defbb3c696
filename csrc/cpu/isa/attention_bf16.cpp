// Attention in bfloat16 by the CPU's own dot products (AVX-512 BF16).
#if ULPGRAD_ISA_LEVEL == 2

#define ULPGRAD_TARGET __attribute__((target("avx512bf16")))

#include "attention_backward.h"
#include "attention_forward.h"
#include "attention_pairs.h"

namespace ulpgrad::ULPGRAD_ISA {

extern const AttentionKernels attention_bf16_dots;
const AttentionKernels attention_bf16_dots = {forward<Bfloat16, Pairs>,         backward<Bfloat16, Pairs>,
                                              add_parts<Bfloat16, float>,       forward_memory<Bfloat16, Pairs>,
                                              backward_memory<Bfloat16, Pairs>, values_memory<Bfloat16, Pairs>,
                                              pack_values<Bfloat16, Pairs>};

}  // namespace ulpgrad::ULPGRAD_ISA

#endif
