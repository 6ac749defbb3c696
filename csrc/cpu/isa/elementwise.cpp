#include "elementwise.h"

#include "elementwise_map.h"
#include "vector_angles.h"
#include "vector_hyperbolic.h"

namespace ulpgrad::ULPGRAD_ISA {

#include "elementwise_loops.h"

extern const ElementwiseTable elementwise_table = {kernels, sizeof kernels / sizeof *kernels};

}  // namespace ulpgrad::ULPGRAD_ISA
