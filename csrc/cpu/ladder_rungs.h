// How the bindings of the teaching ladders find a rung by its name.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>

#include "bind.h"

namespace ulpgrad {

// Raises ValueError for names that are not in the table.
template <typename Run>
Run rung_named(const char* ladder, const std::string& name, std::initializer_list<std::pair<const char*, Run>> rungs) {
  for (const auto& [known, run] : rungs)
    if (name == known) return run;
  throw py::value_error(std::string(ladder) + ": there is no rung '" + name + "'");
}

}  // namespace ulpgrad
