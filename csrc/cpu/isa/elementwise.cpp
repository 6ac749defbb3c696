#include "elementwise.h"

#include "rows_math.h"
#include "vector_math.h"

namespace ulpgrad::ULPGRAD_ISA {

#include "elementwise_loops.h"

extern const ElementwiseTable elementwise_table = {kernels, sizeof kernels / sizeof *kernels};

}  // namespace ulpgrad::ULPGRAD_ISA
