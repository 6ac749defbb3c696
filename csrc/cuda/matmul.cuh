// What the rungs of the matrix product share: where operands lie.
#pragma once

#include "device.cuh"

namespace ulpgrad {

// c[s, m, n] = a[s, m, k] @ b[s, k, n] for each s of a stack. Operands are taken as they lie: a transposed matrix is
// one whose steps are exchanged, and one matrix serves the whole stack where the step from matrix to matrix is 0.
struct Product {
  Index stacks, m, n, k;
  Index a_stack, a_row, a_column;
  Index b_stack, b_row, b_column;
};

}  // namespace ulpgrad
