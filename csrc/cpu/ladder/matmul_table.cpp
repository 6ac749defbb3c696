#include "matmul.h"

namespace ulpgrad::ULPGRAD_ISA {

extern const MatmulLadder matmul_ladder = {multiply_loops, multiply_rows,   multiply_blocks,
                                           multiply_tile,  multiply_packed, multiply_threads};

}  // namespace ulpgrad::ULPGRAD_ISA
