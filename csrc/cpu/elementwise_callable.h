// Turns a loop over contiguous values into a Python function over arrays of any layout.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bind.h"
#include "cast.h"
#include "elementwise.h"

namespace ulpgrad {

// How an operand or a result lies in memory, and how it reaches the type that the loop computes in.
struct ElementType {
  int number;                  // NumPy's type number
  int size;                    // bytes
  CastLoop convert = nullptr;  // to the loop's type (operands), from it (result); none if it is that type
};

using CastFunction = std::function<void(const void* in, void* out, int64_t n)>;

struct ElementwiseCall {
  std::string name;
  std::vector<ElementType> operands;
  ElementType result;
  int computed_size;     // bytes of the type the loop computes in
  int params;            // numbers that follow the operands
  int64_t grain;         // elements that are worth a thread
  ElementwiseLoop loop;  // or, for a conversion of one operand,
  CastFunction cast = nullptr;
};

// A function (array, ..., number, ...) -> array. Operands broadcast and may have any strides; the result is laid out in
// memory as the first operand of its shape is.
py::object make_callable(std::unique_ptr<ElementwiseCall> call);

}  // namespace ulpgrad
