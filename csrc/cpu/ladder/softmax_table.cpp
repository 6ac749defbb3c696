#include "softmax.h"

namespace ulpgrad::ULPGRAD_ISA {

extern const SoftmaxLadder softmax_ladder = {softmax_passes, softmax_polynomial, softmax_lanes,
                                             softmax_rows,   softmax_sweeps,     softmax_threads};

}  // namespace ulpgrad::ULPGRAD_ISA
