// CUDA's words for a C++ compiler of the host, so that plain kernels run without a GPU: blocks one after the other, the
// threads of a block each with a stack of its own, and __syncthreads a real barrier between them.
//
// The threads are fibers that take turns, which is quick. With ULPGRAD_HOST_THREADS they are threads of the system, so
// that the thread sanitizer sees two of them touch one place without a barrier in between. What has no meaning here is
// absent: warps and their shuffles, matrix instructions, asynchronous copies.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef ULPGRAD_HOST_THREADS
#include <pthread.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#else
#include <ucontext.h>
#endif

#include "kinds.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static  // one block runs at a time

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// Memory that a thread reads and writes in one go.
#define ULPGRAD_HOST_VECTORS(type, name)                   \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; }; \
  struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; };
ULPGRAD_HOST_VECTORS(float, float)
ULPGRAD_HOST_VECTORS(double, double)
ULPGRAD_HOST_VECTORS(int, int)
ULPGRAD_HOST_VECTORS(unsigned, uint)
#undef ULPGRAD_HOST_VECTORS

inline thread_local dim3 threadIdx{0, 0, 0}, blockIdx{0, 0, 0};
inline dim3 blockDim, gridDim;

using std::max;
using std::min;

template <class T>
T __ldg(const T* x) {
  return *x;
}

template <class T>
void __stcs(T* to, T x) {
  *to = x;
}

inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float __uint_as_float(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

namespace ulpgrad::host {

constexpr size_t STACK = size_t{1} << 16;  // bytes for a thread
constexpr unsigned char POISON = 0xff;     // NaN as a float of any width, and no index

inline std::vector<unsigned char> shared_memory;

inline unsigned char* dynamic_shared() {
  const auto address = reinterpret_cast<uintptr_t>(shared_memory.data());
  return shared_memory.data() + (1024 - address % 1024) % 1024;
}

// Whether one instruction can move so many bytes from there, or to there.
inline bool is_aligned(const void* place, size_t bytes) { return reinterpret_cast<uintptr_t>(place) % bytes == 0; }

inline dim3 place(size_t i, const dim3& size) {
  return {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
          static_cast<unsigned>(i / size.x / size.y)};
}

inline size_t volume(const dim3& size) { return size_t{size.x} * size.y * size.z; }

#ifdef ULPGRAD_HOST_THREADS

// Lets nobody on before all have come. Whoever is done while others wait has left them behind: that ends the program.
class Barrier {
 public:
  explicit Barrier(unsigned count) { pthread_barrier_init(&all_, nullptr, count); }
  ~Barrier() { pthread_barrier_destroy(&all_); }

  void wait(bool is_done) {
    static thread_local unsigned turn = 0;  // threads live for one launch
    turn += 1;
    if (is_done) done_at_ = turn;
    pthread_barrier_wait(&all_);
    if (!is_done && done_at_ == turn) {
      std::fputs("threads of a block came to different barriers\n", stderr);
      std::abort();
    }
  }

 private:
  std::atomic<unsigned> done_at_{0};
  pthread_barrier_t all_;
};

inline Barrier* barrier = nullptr;

inline void wait_for_block() { barrier->wait(false); }

// Ends the program.
[[noreturn]] inline void give_up(const char* why) {
  std::fputs(why, stderr);
  std::abort();
}

// Runs the body in every thread of every block; false if threads of a block did not all come to the same barriers.
inline bool run_grid(const std::function<void()>& body) {
  Barrier all(static_cast<unsigned>(volume(blockDim)));
  barrier = &all;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < volume(blockDim); ++i) {
    threads.emplace_back([&, i] {
      threadIdx = place(i, blockDim);
      for (size_t at = 0; at < volume(gridDim); ++at) {
        if (i == 0) std::fill(shared_memory.begin(), shared_memory.end(), POISON);
        all.wait(false);
        blockIdx = place(at, gridDim);
        body();
        all.wait(true);
      }
    });
  }
  for (std::thread& one : threads) one.join();
  return true;
}

#else

// A thread of a block, on a stack of its own. The scheduler goes from one to the next whenever one waits.
struct Fiber {
  ucontext_t context;
  bool is_done = false;
};

inline ucontext_t scheduler;
inline Fiber* running = nullptr;
inline const std::function<void()>* body_of_all = nullptr;
inline unsigned long long blocks = 0;  // how many have begun: what a thread of an earlier one has left is of no meaning
inline unsigned long long events = 0;  // what may let a waiting thread go on: a round of all without any is the last

inline const char* broken = nullptr;  // what a thread has done that no GPU allows

inline void let_others_run() { swapcontext(&running->context, &scheduler); }

// Ends the launch.
[[noreturn]] inline void give_up(const char* why) {
  broken = why;
  for (;;) let_others_run();
}

// Lets nobody on before all have come.
class Barrier {
 public:
  void wait(size_t count) {
    ++events;
    if (++arrived_ == count) {
      arrived_ = 0;
      ++turn_;
      return;
    }
    for (const unsigned turn = turn_; turn == turn_;) let_others_run();
  }

 private:
  size_t arrived_ = 0;
  unsigned turn_ = 0;
};

struct Barriers {
  Barrier block, warps[32];
};

inline Barriers barriers;

inline void wait_for_block() { barriers.block.wait(volume(blockDim)); }

inline void run_fiber() {
  (*body_of_all)();
  running->is_done = true;
  ++events;
  let_others_run();
}

// False if threads wait for what cannot come any more, as at a barrier that others have left behind.
inline bool run_block(std::vector<Fiber>& fibers) {
  barriers = {}, broken = nullptr, ++blocks;
  for (size_t done = 0; done < fibers.size();) {
    const unsigned long long before = events;
    for (size_t i = 0; i < fibers.size(); ++i) {
      if (fibers[i].is_done) continue;
      threadIdx = place(i, blockDim);
      running = &fibers[i];
      swapcontext(&scheduler, &running->context);
      done += running->is_done;
      if (broken) return false;
    }
    if (events == before) return false;
  }
  return true;
}

// Runs the body in every thread of every block; false if threads of a block did not all come to the same barriers.
inline bool run_grid(const std::function<void()>& body) {
  using Stack = std::unique_ptr<unsigned char[]>;
  static std::vector<Stack> stacks;  // kept, since most launches are alike
  while (stacks.size() < volume(blockDim)) stacks.emplace_back(new unsigned char[STACK]);
  body_of_all = &body;
  for (size_t at = 0; at < volume(gridDim); ++at) {
    blockIdx = place(at, gridDim);
    std::fill(shared_memory.begin(), shared_memory.end(), POISON);
    std::vector<Fiber> fibers(volume(blockDim));
    for (size_t i = 0; i < fibers.size(); ++i) {
      ucontext_t& context = fibers[i].context;
      getcontext(&context);
      context.uc_stack.ss_sp = stacks[i].get();
      context.uc_stack.ss_size = STACK;
      makecontext(&context, run_fiber, 0);
    }
    if (!run_block(fibers)) return false;
  }
  return true;
}

#endif

template <class... Ts, size_t... Is>
void call(void (*kernel)(Ts...), void* const* arguments, std::index_sequence<Is...>) {
  kernel(*static_cast<std::remove_const_t<Ts>*>(arguments[Is])...);
}

// Runs a kernel on a grid of blocks, with addresses of its arguments as cuLaunchKernel takes them; null, or what went
// wrong.
template <class... Ts>
const char* run(void (*kernel)(Ts...), const unsigned* grid, const unsigned* block, size_t shared_bytes,
                const char* kinds, void* const* arguments) {
  static std::string fault;
  if (kinds_of(kernel) != kinds) {
    fault = "it takes " + kinds_of(kernel) + ", not " + kinds;
    return fault.c_str();
  }
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  shared_memory.resize(shared_bytes + 1024);
  if (!run_grid([&] { call(kernel, arguments, std::index_sequence_for<Ts...>()); })) {
    fault = "threads of a block came to different barriers, or wait for what cannot come: nobody went on";
#ifndef ULPGRAD_HOST_THREADS
    if (broken) fault = broken;
#endif
    return fault.c_str();
  }
  return nullptr;
}

}  // namespace ulpgrad::host

inline void __syncthreads() { ulpgrad::host::wait_for_block(); }
