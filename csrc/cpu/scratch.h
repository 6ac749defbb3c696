// Working memory that a thread keeps from call to call: large new blocks would be paged in anew by the system each
// time.
#pragma once

#include <cstddef>

namespace ulpgrad {

// One slot per user that may be active on a thread at the same time.
enum class Slot : int { gemm_a, gemm_b, gemm_sums, caller, weights };

// At least `bytes` of this thread's memory, aligned to 64 bytes, contents undefined; valid until the slot is next asked
// for.
void* scratch(Slot slot, size_t bytes);

}  // namespace ulpgrad
