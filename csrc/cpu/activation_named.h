// An activation by the name that Python gives it.
#pragma once

#include "bind.h"
#include "gemm.h"

namespace ulpgrad {

// "" stands for none. Raises ValueError for names that are not known.
inline Activation activation_named(const char* op, const std::string& name) {
  const char* const names[] = {"", "relu", "gelu", "silu", "tanh", "sigmoid"};
  for (int i = 0; i < 6; ++i)
    if (name == names[i]) return static_cast<Activation>(i);
  throw py::value_error(std::string(op) + ": activation='" + name + "': expected relu, gelu, silu, tanh or sigmoid");
}

}  // namespace ulpgrad
