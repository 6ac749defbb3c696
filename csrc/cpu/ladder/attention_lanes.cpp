// Queries in lanes: the scores of one key and 64 queries are summed up at once, without sums across a vector, and the
// softmax runs down the lanes. The softmax is a running one, over blocks of keys that stay in the cache for 64 queries.
#include "attention_running.h"

namespace ulpgrad::ULPGRAD_ISA {

void attend_lanes(const LadderHead& x) { Running::run<1, false>(x); }

}  // namespace ulpgrad::ULPGRAD_ISA
