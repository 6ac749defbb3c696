// For the host: products of a warp group, made when they are waited for, as late as the unit may make them. What is in
// shared memory by then is what they see.
#pragma once

#include "matrix_unit_host.h"

namespace ulpgrad::host {

// Groups of products that a thread has asked for. Those of a block that was given up are never made: the sums that they
// would be added to are gone.
class Products {
 public:
  Products& of_block(unsigned long long block) {
    if (block != block_) open_.clear(), groups_.clear(), block_ = block;
    return *this;
  }

  void add(std::function<void()> make) { open_.push_back(std::move(make)); }

  void close() {
    groups_.push_back(std::move(open_));
    open_.clear();
  }

  void wait(size_t open) {
    while (groups_.size() > open) {
      for (const auto& make : groups_.front()) make();
      groups_.erase(groups_.begin());
    }
  }

 private:
  std::vector<std::function<void()>> open_;
  std::vector<std::vector<std::function<void()>>> groups_;
  unsigned long long block_ = 0;
};

inline Products& products_of_thread() {
  static Products all[MOST_THREADS];
  return all[thread_number()].of_block(blocks);
}

// The 16 bits at a row of A (or a column of B) and a step of the tile that a descriptor names: lines of 128 bytes in
// groups of eight, and bits 4 to 6 of an address are xored with bits 7 to 9 (the pattern of 128 bytes, the only one
// here). ACROSS, lines are steps, and 64 rows are a block.
template <bool ACROSS = false>
const unsigned short* element_of(unsigned long long descriptor, int row, int step) {
  const size_t start = (descriptor & 0x3fff) << 4, groups = (descriptor >> 32 & 0x3fff) << 4,
               blocks = (descriptor >> 16 & 0x3fff) << 4;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) give_up("a descriptor of another pattern");
  const int line = ACROSS ? step : row, place = ACROSS ? row % 64 : step;
  const size_t block = ACROSS ? row / 64 * blocks : 0;
  const size_t address = start + block + line / 8 * groups + line % 8 * 128 + place * 2;
  return reinterpret_cast<const unsigned short*>(dynamic_shared() + (address ^ (address >> 7 & 7) << 4));
}

// This thread's sums of 16 steps.
template <bool ACROSS, class T, int COUNT>
void multiply(float (&c)[COUNT], unsigned long long a, unsigned long long b, bool add) {
  const int thread = static_cast<int>(thread_number() % WARPGROUP);
  const auto value = [](unsigned long long operand, int row, int k) {
    return widen(T{*element_of<ACROSS>(operand, row, k)});
  };
  float left[2][16];
  for (int half = 0; half < 2; ++half) {
    for (int k = 0; k < 16; ++k) left[half][k] = value(a, spot_of_sum(thread, half * 2).row, k);
  }
  for (int i = 0; i < COUNT; ++i) {
    const Spot at = spot_of_sum(thread, i);
    float sum = add ? c[i] : 0;
    for (int k = 0; k < 16; ++k) sum += left[i / 2 % 2][k] * value(b, at.column, k);
    c[i] = sum;
  }
}

}  // namespace ulpgrad::host
