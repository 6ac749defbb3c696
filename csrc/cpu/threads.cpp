#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <utility>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace ulpgrad {
namespace {

constexpr int kMostWorkers = 1023;

// How long to look for work, or for the end of it, before sleeping: longer than the pause between two calls of a busy
// Python program. Waking a thread that sleeps takes about as long as a small kernel.
constexpr std::chrono::microseconds kIdle{2000}, kEnding{200};

std::atomic<int> configured{1};
thread_local int region_index = -1;  // in a region: this thread's number in it

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Waits until `ready` or for so long; whether it is. Who else wants the core gets it.
template <typename Ready>
bool spin(std::chrono::microseconds longest, const Ready& ready) {
  const auto end = std::chrono::steady_clock::now() + longest;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      relax();
    }
    sched_yield();
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

// One region. It lives on the stack of the thread that called, until no worker is in it.
struct Job {
  void (*task)(const void* body, int64_t i);
  const void* body;
  int64_t count;
  std::atomic<int64_t> next{0};
  std::atomic<int> active{0};  // workers inside
  int places = 0, joined = 0;  // workers that may still come, and how many came (under the pool's mutex)
  Job* below = nullptr;        // the stack of jobs with places left, or whose caller has not left it

  std::atomic<bool> failed{false};
  std::exception_ptr failure{};

  // What a task throws (memory that there is not) ends the job, and reaches the caller.
  void run(int index) noexcept {
    const int outside = region_index;
    region_index = index;
    try {
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(body, i);
    } catch (...) {
      next = count;
      if (!failed.exchange(true)) failure = std::current_exception();
    }
    region_index = outside;
  }
};

class Pool {
 public:
  void run(Job& job) {
    const int wanted = job.places;
    bool asleep;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (workers_ < std::min(wanted, kMostWorkers) && start()) ++workers_;
      job.below = jobs_;
      jobs_ = &job;
      places_ += wanted;
      asleep = sleeping_ > 0 && looking_ < wanted;
      if (has_moved() || asleep) keep_off_this_core();
    }
    if (asleep) wanted == 1 ? work_.notify_one() : work_.notify_all();
    job.run(0);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      places_ -= job.places;
      Job** at = &jobs_;
      while (*at != &job) at = &(*at)->below;
      *at = job.below;
    }
    if (spin(kEnding, [&] { return job.active == 0; })) return;
    std::unique_lock<std::mutex> lock(mutex_);
    ++waiting_;
    ended_.wait(lock, [&] { return job.active == 0; });
    --waiting_;
  }

 private:
  // A worker takes no signals: they are for the threads of the program.
  bool start() {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    const auto body = [](void* pool) -> void* { static_cast<Pool*>(pool)->work(); };
    const bool started = pthread_create(&thread, nullptr, body, this) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (!started) return false;
    threads_[workers_] = thread;
    pthread_detach(thread);
    return true;
  }

  // Linux may wake a thread on the core of whoever wakes it, though another is idle, or move its caller to the core
  // that it looks for work on, and leave it there for many calls: so workers may run on all cores of the caller but the
  // one it is on.
  void keep_off_this_core() {
#ifdef __linux__
    const int core = sched_getcpu();
    cpu_set_t cores;
    if (core < 0 || sched_getaffinity(0, sizeof cores, &cores)) return;
    if (CPU_COUNT(&cores) > 1) CPU_CLR(core, &cores);
    if (CPU_EQUAL(&cores, &kept_to_) && workers_ == kept_) return;
    for (int i = 0; i < workers_; ++i) pthread_setaffinity_np(threads_[i], sizeof cores, &cores);
    kept_to_ = cores, kept_ = workers_;
#endif
  }

  // Whether the calling thread is on another core than at its last call.
  static bool has_moved() {
#ifdef __linux__
    thread_local int last = -1;
    const int core = sched_getcpu();
    return core != std::exchange(last, core);
#else
    return false;
#endif
  }

  [[noreturn]] void work() {
    for (;;) {
      ++looking_;
      spin(kIdle, [&] { return places_ > 0; });
      --looking_;
      std::unique_lock<std::mutex> lock(mutex_);
      ++sleeping_;
      work_.wait(lock, [&] { return places_ > 0; });
      --sleeping_;
      Job* job = jobs_;
      while (!job->places) job = job->below;
      --job->places, --places_, ++job->active;
      const int index = ++job->joined;
      lock.unlock();
      job->run(index);
      if (--job->active > 0 || waiting_ == 0) continue;  // the job may be gone from here on
      lock.lock();
      lock.unlock();  // its caller is asleep by now, or sees that nobody is inside
      ended_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable work_, ended_;
  std::atomic<int> places_{0};   // of all jobs
  std::atomic<int> looking_{0};  // workers that would see them at once
  std::atomic<int> waiting_{0};  // callers that sleep until workers have left
  int workers_ = 0, sleeping_ = 0;
  pthread_t threads_[kMostWorkers];
#ifdef __linux__
  cpu_set_t kept_to_{};  // the cores that the first `kept_` workers are kept to
  int kept_ = 0;
#endif
  Job* jobs_ = nullptr;
};

// Never destroyed: workers use it until the process ends. A forked child has none of its parent's threads, and perhaps
// a locked mutex: it begins anew.
Pool* pool = new Pool;
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] {
  pool = new Pool;
  region_index = -1;
});

#ifdef _OPENMP
// What OpenMP gives a thread that nobody set a limit for.
int unlimited() {
  static const int count = [] {
    int found = 0;
    pthread_t thread;
    const auto ask = [](void* to) -> void* { return *static_cast<int*>(to) = omp_get_max_threads(), nullptr; };
    if (pthread_create(&thread, nullptr, ask, &found) == 0) pthread_join(thread, nullptr);
    return found;
  }();
  return count;
}

int allowed() {
  const int limit = omp_get_max_threads();
  return limit == unlimited() ? configured.load() : std::min(configured.load(), limit);
}
#else
int allowed() { return configured; }
#endif

}  // namespace

int num_threads() { return configured; }

void set_num_threads(int n) { configured = std::max(1, n); }

int threads_for(int64_t n, int64_t grain) {
  if (n <= grain || region_index >= 0) return 1;
  return static_cast<int>(std::min<int64_t>(allowed(), n / std::max<int64_t>(1, grain)));
}

int thread_index() { return std::max(0, region_index); }

void run_tasks(int64_t n, int threads, void (*task)(const void* body, int64_t i), const void* body) {
  Job job{task, body, n};
  job.places = static_cast<int>(std::min<int64_t>(threads, n)) - 1;
  pool->run(job);
  if (job.failed) std::rethrow_exception(job.failure);
}

}  // namespace ulpgrad
