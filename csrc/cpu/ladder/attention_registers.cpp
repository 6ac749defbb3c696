// Weights are made from a tile of scores while these are in registers, for the shift that there is, at first 0. Only
// where their sum says that it is too low or too high are scores written and looked at first.
#include "attention_running.h"

namespace ulpgrad::ULPGRAD_ISA {

void attend_registers(const LadderHead& x) { Running::run<kTileRows, true>(x); }

}  // namespace ulpgrad::ULPGRAD_ISA
