#include "integer_matmul_units.h"

namespace ulpgrad::ULPGRAD_ISA {

extern const IntegerLadder integer_ladder = {integer_loops, integer_rows, integer_pairs, integer_tile, integer_panels};

}  // namespace ulpgrad::ULPGRAD_ISA
