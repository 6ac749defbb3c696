#include "sum.h"

namespace ulpgrad::ULPGRAD_ISA {

extern const SumLadder sum_ladder = {sum_loops, sum_chains, sum_lanes, sum_threads};

}  // namespace ulpgrad::ULPGRAD_ISA
