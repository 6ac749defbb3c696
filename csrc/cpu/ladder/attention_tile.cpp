// The scores of six keys at once, and the results of six queries: what is loaded serves six times.
#include "attention_running.h"

namespace ulpgrad::ULPGRAD_ISA {

void attend_tile(const LadderHead& x) { Running::run<kTileRows, false>(x); }

}  // namespace ulpgrad::ULPGRAD_ISA
