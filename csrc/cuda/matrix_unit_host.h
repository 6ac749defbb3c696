// For the host: what lanes of a warp see of each other, and copies that take their time.
#pragma once

#include <array>
#include <utility>

#include "host.h"

namespace ulpgrad::host {

constexpr unsigned MOST_THREADS = 1024;

inline unsigned thread_number() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

inline int lane() { return static_cast<int>(thread_number() % 32); }

#ifdef ULPGRAD_HOST_THREADS

// Waits for the lanes of the warp, and for no other thread of the block.
inline void wait_for_warp() {
  struct Barrier {
    pthread_barrier_t lanes;
    Barrier() { pthread_barrier_init(&lanes, nullptr, 32); }
    ~Barrier() { pthread_barrier_destroy(&lanes); }
  };
  static Barrier all[MOST_THREADS / 32];
  pthread_barrier_wait(&all[thread_number() / 32].lanes);
}

#else

inline void wait_for_warp() { barriers.warps[thread_number() / 32].wait(32); }

#endif

// A value of each lane of the warp.
template <class T>
class Lanes {
 public:
  explicit Lanes(const T& own) {
    static T all[2][MOST_THREADS];  // in turns: what was exchanged before is read until everybody has come here again
    static bool turns[MOST_THREADS];
    T* const now = all[turns[thread_number()] ^= true];
    now[thread_number()] = own;
    wait_for_warp();
    warp_ = now + thread_number() / 32 * 32;
  }

  const T& operator[](int lane) const { return warp_[lane]; }

 private:
  const T* warp_;
};

// Who holds the elements of a matrix, from where the elements of fragments stand.
struct Holder {
  int lane, element;
};

template <int ROWS, int COLUMNS, int ELEMENTS, class Spot>
std::array<std::array<Holder, COLUMNS>, ROWS> holders(Spot (*spot_of)(int, int)) {
  std::array<std::array<Holder, COLUMNS>, ROWS> found;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < ELEMENTS; ++i) found.at(spot_of(lane, i).row).at(spot_of(lane, i).column) = {lane, i};
  }
  return found;
}

// Copies to shared memory that have been asked for, by groups. Nothing arrives before it is waited for, and until then
// the place holds what is no number: a wait that is missing, or too short, is seen.
class Copies {
 public:
  void add(void* to, const void* from, bool is_there) {
    if (!is_aligned(to, SIZE) || !is_aligned(from, SIZE)) give_up("a copy of 16 bytes that are not aligned");
    std::memset(to, POISON, SIZE);
    open_.push_back({to, is_there ? from : nullptr});
  }

  void close() {
    groups_.push_back(std::move(open_));
    open_.clear();
  }

  void wait(size_t open) {
    while (groups_.size() > open) {
      for (const auto& [to, from] : groups_.front()) {
        if (from) {
          std::memcpy(to, from, SIZE);
        } else {
          std::memset(to, 0, SIZE);
        }
      }
      groups_.erase(groups_.begin());
    }
  }

 private:
  static constexpr size_t SIZE = 16;
  std::vector<std::pair<void*, const void*>> open_;
  std::vector<std::vector<std::pair<void*, const void*>>> groups_;
};

inline Copies& copies_of_thread() {
  static Copies all[MOST_THREADS];
  return all[thread_number()];
}

}  // namespace ulpgrad::host
