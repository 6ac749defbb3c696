// Optimizer steps on a range of one parameter's values: parameter, gradient and state are read once and written once.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

struct Sgd {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, first;
};

// The two corrections are 1 - beta^step.
struct Adam {
  double lr, beta1, beta2, eps, weight_decay, correction1, correction2;
  bool decoupled;
};

struct Adagrad {
  double lr, eps, weight_decay;
};

struct Rmsprop {
  double lr, alpha, eps, momentum, weight_decay;
};

// Arrays of n values; the last state array may be null where an optimizer keeps none.
template <typename T>
struct OptimizerFunctions {
  void (*sgd)(const Sgd& o, T* p, const T* g, T* buffer, int64_t n);
  void (*adam)(const Adam& o, T* p, const T* g, T* m, T* v, int64_t n);
  void (*adagrad)(const Adagrad& o, T* p, const T* g, T* s, int64_t n);
  void (*rmsprop)(const Rmsprop& o, T* p, const T* g, T* s, T* buffer, int64_t n);
  // The sum of squares in 16 sums that take every sixteenth value, added in their order.
  double (*squares)(const T* g, int64_t n);
};

struct OptimizerTable {
  OptimizerFunctions<float> f32;
  OptimizerFunctions<double> f64;
};

ULPGRAD_TABLE(OptimizerTable, optimizer_table)

}  // namespace ulpgrad
