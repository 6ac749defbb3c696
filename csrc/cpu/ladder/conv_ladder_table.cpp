#include "conv_ladder.h"

namespace ulpgrad::ULPGRAD_ISA {

extern const ConvLadder conv_ladder = {convolve_loops,     convolve_padded, convolve_rows,
                                       convolve_registers, convolve_tile,   convolve_threads};

}  // namespace ulpgrad::ULPGRAD_ISA
