// What becomes of a sum of integers on its way to memory: a code of the result's format.
//
//     code = limited(rounded((sum 2^left + bias 2^right) * multiplier / 2^shift)) + zero point
//
// in integers of 64 bits, which hold all that is met on the way. A bias of its own for each channel, with a multiplier
// and a shift or without: the cut of fixed-point results (kernels/fixed/cut.py), and requantisation
// (kernels/requantize/spec.py).
#pragma once

#include "conv_index.cuh"
#include "stochastic.cuh"

namespace ulpgrad {

// As engine/formats/rounding.py numbers them, and ties that go up, toward positive infinity.
enum class Rounding { NEAREST_EVEN, NEAREST_AWAY, TOWARD_ZERO, UP, DOWN, TO_ODD, STOCHASTIC, NEAREST_UP };

struct Rule {
  Strides words;         // where the random word of a result lies
  long long low, high;   // the least and the greatest code, before the zero point is added
  int bytes, is_sum;     // of a result, which may be the sum itself, of 4 or 8 bytes
  int left, right;       // zeros that sums and bias gain
  int drop;              // bits that go (negative: zeros that come), where channels have no shifts of their own
  Rounding rounding;     // of what goes
  int random_bits;       // of a word, that stochastic rounding takes
  int wraps, wraps_sum;  // what does not fit a code wraps, else it saturates; the sum with its bias wraps in 32 bits
  int zero_point;
};

// In shared memory, one for a block. Each of the arrays may be left out.
struct Codes {
  const long long* bias;  // of each channel of the result, as are
  const int *multiplier, *shift;
  const unsigned* words;
  unsigned char* outside;  // whether a result did not fit, where the result lies
  Rule rule;
};

__device__ inline long long shifted_left(long long v, int by) {
  return static_cast<long long>(static_cast<unsigned long long>(v) << by);
}

// v / 2^drop as a whole number. Nothing is added before the shift, since that could overflow.
__device__ inline long long rounded(long long v, int drop, Rounding rounding, int random_bits, unsigned word) {
  if (drop <= 0) return shifted_left(v, -drop);
  const long long whole = v >> drop;
  const bool half = v >> (drop - 1) & 1, more = (v & ((1ll << (drop - 1)) - 1)) != 0;
  switch (rounding) {
    case Rounding::NEAREST_EVEN:
      return whole + (half && (more || (whole & 1)));
    case Rounding::NEAREST_AWAY:
      return whole + (half && (more || v >= 0));
    case Rounding::TOWARD_ZERO:
      return whole + ((half || more) && v < 0);
    case Rounding::UP:
      return whole + (half || more);
    case Rounding::DOWN:
      return whole;
    case Rounding::TO_ODD:
      return whole | (half || more);
    case Rounding::NEAREST_UP:
      return whole + half;
    default: {
      const long long size = v < 0 ? -v : v;
      const long long found = (size >> drop) + goes_up(size & ((1ll << drop) - 1), drop, random_bits, word);
      return v < 0 ? -found : found;
    }
  }
}

// The code of a sum of a channel, written to y[at]. A call: who stores sums as they are has no registers for it.
__device__ __attribute__((noinline)) inline void store_code(const Codes& c, void* y, long long at, long long word_at,
                                                            int channel, long long sum) {
  const Rule& rule = c.rule;
  const long long bias = c.bias ? c.bias[channel] : 0;
  long long v = static_cast<long long>(static_cast<unsigned long long>(shifted_left(sum, rule.left)) +
                                       static_cast<unsigned long long>(shifted_left(bias, rule.right)));
  if (rule.wraps_sum) v = static_cast<int>(v);
  if (c.multiplier) v *= c.multiplier[channel];
  v = rounded(v, c.shift ? c.shift[channel] : rule.drop, rule.rounding, rule.random_bits,
              c.words ? c.words[word_at] : 0);
  if (c.outside) c.outside[at] = v < rule.low || v > rule.high;
  if (rule.wraps) {  // a word has a power of two values
    const unsigned long long low = rule.low, span = static_cast<unsigned long long>(rule.high) - low;
    v = static_cast<long long>(((static_cast<unsigned long long>(v) - low) & span) + low);
  } else {
    v = v < rule.low ? rule.low : v > rule.high ? rule.high : v;
  }
  v += rule.zero_point;
  switch (rule.bytes) {
    case 1:
      static_cast<unsigned char*>(y)[at] = static_cast<unsigned char>(v);
      break;
    case 2:
      static_cast<unsigned short*>(y)[at] = static_cast<unsigned short>(v);
      break;
    case 4:
      static_cast<int*>(y)[at] = static_cast<int>(v);
      break;
    default:
      static_cast<long long*>(y)[at] = v;
  }
}

}  // namespace ulpgrad
