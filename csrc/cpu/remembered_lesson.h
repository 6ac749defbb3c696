// What calls of one kind came to: the kernels that ran and the views that were taken, one after the other.
#pragma once

#include <utility>
#include <vector>

#include "remembered_key.h"

namespace ulpgrad {

constexpr size_t kMostTensors = 48;  // of a lesson: among the arguments, and made by its steps

// One of them. Tensors are counted through: those among the arguments first, then what the steps give.
struct Step {
  py::object run, names;              // the kernel and its parameters' names; no kernel where the step takes a view
  std::vector<py::object> values;     // of the parameters
  py::tuple formats;                  // of the results
  std::vector<int> operands;          // by their numbers, or less than 0 for those in constants
  std::vector<py::object> constants;  // an operand that is absent, or a number
  // Of a view: its memory, seen from that of its operand.
  std::vector<py::ssize_t> shape, strides;
  py::ssize_t offset = 0;
  bool writeable = false;
  // The node that records the step, where one does: of an op, with the tensors it saves and their names, or of a
  // movement, with its way back.
  py::object name, places, primitive, params, back;
  std::vector<std::pair<py::object, int>> saved_operands, saved_outs;
  Script script;  // of a step on a device
};

struct Lesson {
  std::vector<uint64_t> key;
  std::vector<py::object> kept;  // what the key names by its address
  std::vector<Step> steps;       // none where the function itself has to be called each time
  std::vector<int> outs;
  bool several = false;  // whether the result is a tuple

  // What `_learn` of differentiable.py found, besides the result: the steps, and where the results are.
  void take(const py::list& steps, const py::object& outs);
};

// The result for the tensors of a call; nothing where a kernel raised, so that the function has to be called.
py::object follow(const Lesson& lesson, const Key& key);

}  // namespace ulpgrad
