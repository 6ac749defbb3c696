#include "optimizer.h"

#include <cmath>

namespace ulpgrad::ULPGRAD_ISA {

// Plain loops: arrays do not overlap, choices are made outside, and the compiler turns the rest into vector code.

template <bool has_buffer, bool nesterov, typename T>
static void sgd_loop(const Sgd& o, T* __restrict p, const T* __restrict g, T* __restrict buffer, int64_t n) {
  const T lr = static_cast<T>(o.lr), decay = static_cast<T>(o.weight_decay);
  const T momentum = static_cast<T>(o.first ? 0 : o.momentum), look = static_cast<T>(o.momentum);
  const T fresh = static_cast<T>(o.first ? 1 : 1 - o.dampening);
  for (int64_t i = 0; i < n; ++i) {
    T step = g[i] + decay * p[i];
    if (has_buffer) {
      const T b = momentum * buffer[i] + fresh * step;
      buffer[i] = b;
      step = nesterov ? step + look * b : b;
    }
    p[i] -= lr * step;
  }
}

template <typename T>
static void sgd(const Sgd& o, T* p, const T* g, T* buffer, int64_t n) {
  if (buffer && o.first)
    for (int64_t i = 0; i < n; ++i) buffer[i] = 0;  // what it held, perhaps NaN, does not count
  if (!buffer) return sgd_loop<false, false>(o, p, g, buffer, n);
  if (o.nesterov) return sgd_loop<true, true>(o, p, g, buffer, n);
  sgd_loop<true, false>(o, p, g, buffer, n);
}

template <typename T>
static void adam(const Adam& o, T* __restrict p, const T* __restrict g, T* __restrict m, T* __restrict v, int64_t n) {
  const T keep = static_cast<T>(o.decoupled ? 1 - o.lr * o.weight_decay : 1);
  const T decay = static_cast<T>(o.decoupled ? 0 : o.weight_decay);
  const T beta1 = static_cast<T>(o.beta1), beta2 = static_cast<T>(o.beta2), eps = static_cast<T>(o.eps);
  const T fresh1 = static_cast<T>(1 - o.beta1), fresh2 = static_cast<T>(1 - o.beta2);
  const T rate = static_cast<T>(o.lr / o.correction1), root = static_cast<T>(1 / std::sqrt(o.correction2));
  for (int64_t i = 0; i < n; ++i) {
    const T gradient = g[i] + decay * p[i];
    const T mean = beta1 * m[i] + fresh1 * gradient;
    const T square = beta2 * v[i] + fresh2 * gradient * gradient;
    m[i] = mean;
    v[i] = square;
    p[i] = keep * p[i] - rate * mean / (std::sqrt(square) * root + eps);
  }
}

template <typename T>
static void adagrad(const Adagrad& o, T* __restrict p, const T* __restrict g, T* __restrict s, int64_t n) {
  const T lr = static_cast<T>(o.lr), eps = static_cast<T>(o.eps), decay = static_cast<T>(o.weight_decay);
  for (int64_t i = 0; i < n; ++i) {
    const T gradient = g[i] + decay * p[i];
    const T square = s[i] + gradient * gradient;
    s[i] = square;
    p[i] -= lr * gradient / (std::sqrt(square) + eps);
  }
}

template <bool has_buffer, typename T>
static void rmsprop_loop(const Rmsprop& o, T* __restrict p, const T* __restrict g, T* __restrict s,
                         T* __restrict buffer, int64_t n) {
  const T lr = static_cast<T>(o.lr), eps = static_cast<T>(o.eps), decay = static_cast<T>(o.weight_decay);
  const T alpha = static_cast<T>(o.alpha), fresh = static_cast<T>(1 - o.alpha), momentum = static_cast<T>(o.momentum);
  for (int64_t i = 0; i < n; ++i) {
    const T gradient = g[i] + decay * p[i];
    const T square = alpha * s[i] + fresh * gradient * gradient;
    s[i] = square;
    T move = gradient / (std::sqrt(square) + eps);
    if (has_buffer) {
      move += momentum * buffer[i];
      buffer[i] = move;
    }
    p[i] -= lr * move;
  }
}

template <typename T>
static void rmsprop(const Rmsprop& o, T* p, const T* g, T* s, T* buffer, int64_t n) {
  buffer ? rmsprop_loop<true>(o, p, g, s, buffer, n) : rmsprop_loop<false>(o, p, g, s, buffer, n);
}

template <typename T>
static double squares(const T* g, int64_t n) {
  constexpr int64_t kLanes = 16;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) {
      const double value = static_cast<double>(g[i + j]);
      lanes[j] += value * value;
    }
  for (int64_t j = 0; i + j < n; ++j) {
    const double value = static_cast<double>(g[i + j]);
    lanes[j] += value * value;
  }
  double sum = 0;
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  return sum;
}

template <typename T>
constexpr OptimizerFunctions<T> kFunctions = {sgd<T>, adam<T>, adagrad<T>, rmsprop<T>, squares<T>};

extern const OptimizerTable optimizer_table = {kFunctions<float>, kFunctions<double>};

}  // namespace ulpgrad::ULPGRAD_ISA
