#include "attention.h"

namespace ulpgrad::ULPGRAD_ISA {

extern const AttentionLadder attention_ladder = {attend_rows, attend_vectors, attend_lanes, attend_tile,
                                                 attend_registers};

}  // namespace ulpgrad::ULPGRAD_ISA
