#include "memory_cache.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace ulpgrad {
namespace {

constexpr int kSmallest = 10;              // log2 of the bytes below which NumPy's allocator keeps blocks itself
constexpr size_t kHuge = size_t{1} << 21;  // bytes of a huge page on x86-64 and AArch64

// Arrays that begin at the same place in a page compete for the same lines of the first cache when a loop runs through
// them side by side (Adam, four arrays: 11 to 18 % slower). Blocks of pages begin at one of 16 places instead.
constexpr size_t kPage = 4096, kColour = 256;

size_t next_colour() {
  static std::atomic<unsigned> count{0};
  return count.fetch_add(5, std::memory_order_relaxed) % 16 * kColour;
}

char* page_of(void* block) { return reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(block) / kPage * kPage); }

// Large blocks begin in a huge page and ask for such: a page fault then brings 2 MiB instead of 4 KiB.
void* map_block(size_t bytes) {
  void* all = mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(all);
  const size_t before = (kHuge - reinterpret_cast<uintptr_t>(begin) % kHuge) % kHuge;
  if (before) munmap(begin, before);
  munmap(begin + before + bytes, kHuge - before);
#ifdef MADV_HUGEPAGE
  madvise(begin + before, bytes, MADV_HUGEPAGE);
#endif
  return begin + before;
}

void* from_system(size_t bytes) {
  void* block = nullptr;
  if (bytes < kPage) return posix_memalign(&block, 64, bytes) == 0 ? block : nullptr;
  if (bytes >= kHuge)
    block = map_block(bytes + kPage);
  else if (posix_memalign(&block, kPage, bytes + kPage) != 0)
    return nullptr;
  return block ? static_cast<char*>(block) + next_colour() : nullptr;
}

void to_system(void* block, size_t bytes) {
  if (bytes >= kHuge)
    munmap(page_of(block), bytes + kPage);
  else
    std::free(bytes < kPage ? block : page_of(block));
}

struct Kept {
  std::vector<void*> blocks;  // the last one let go is the first to be taken
  uint64_t used = 0;          // when a block of this kind was last taken or given
};

class Cache {
 public:
  std::mutex mutex;
  std::atomic<size_t> limit{0};

  void* take(int kind) {
    const size_t bytes = block_bytes(kind);
    void* block = nullptr;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      Kept& kept = kinds_[kind];
      kept.used = ++clock_;
      if (!kept.blocks.empty()) {
        block = kept.blocks.back();
        kept.blocks.pop_back();
        stats_.cached -= bytes;
        ++stats_.reused;
        count(bytes);
      }
    }
    if (block) return block;
    block = from_system(bytes);
    const std::lock_guard<std::mutex> lock(mutex);
    if (!block) {
      shrink(0);
      block = from_system(bytes);
    }
    if (block) {
      ++stats_.allocated;
      count(bytes);
    }
    return block;
  }

  void give(int kind, void* block) {
    const size_t bytes = block_bytes(kind);
    const std::lock_guard<std::mutex> lock(mutex);
    stats_.in_use -= bytes;
    Kept& kept = kinds_[kind];
    kept.used = ++clock_;
    if (bytes <= limit) {
      shrink(limit - bytes);
      try {
        kept.blocks.push_back(block);
        stats_.cached += bytes;
        return;
      } catch (const std::bad_alloc&) {
      }
    }
    to_system(block, bytes);
  }

  // Gives blocks back to the system until at most `most` bytes are kept. The caller holds the mutex.
  void shrink(size_t most) {
    while (stats_.cached > most) {
      int oldest = -1;
      for (int kind = 0; kind < kBlockSizes; ++kind)
        if (!kinds_[kind].blocks.empty() && (oldest < 0 || kinds_[kind].used < kinds_[oldest].used)) oldest = kind;
      std::vector<void*>& blocks = kinds_[oldest].blocks;
      const size_t bytes = block_bytes(oldest);
      while (!blocks.empty() && stats_.cached > most) {
        to_system(blocks.back(), bytes);
        blocks.pop_back();
        stats_.cached -= bytes;
      }
    }
  }

  CacheStats stats() {
    const std::lock_guard<std::mutex> lock(mutex);
    stats_.limit = limit;
    return stats_;
  }

 private:
  void count(size_t bytes) {
    stats_.in_use += bytes;
    stats_.peak = std::max(stats_.peak, stats_.in_use);
  }

  Kept kinds_[kBlockSizes];
  CacheStats stats_{};
  uint64_t clock_ = 0;
};

// Never destroyed: arrays may be let go after static objects are. A fork waits for the lock, which the child then has.
Cache& cache() {
  static Cache& one = [&]() -> Cache& {
    static Cache* const made = new Cache;
    pthread_atfork([] { made->mutex.lock(); }, [] { made->mutex.unlock(); }, [] { made->mutex.unlock(); });
    return *made;
  }();
  return one;
}

}  // namespace

int block_kind(size_t bytes) {
  if (bytes <= size_t{1} << kSmallest) return -1;
  const int octave = 63 - __builtin_clzll(bytes - 1);  // 2^octave < bytes <= 2^(octave + 1)
  const int eighth = static_cast<int>((bytes - 1) >> (octave - 3)) & 7;
  const int kind = 8 * (octave - kSmallest) + eighth;
  return kind < kBlockSizes ? kind : -1;
}

size_t block_bytes(int kind) { return static_cast<size_t>(9 + kind % 8) << (kind / 8 + kSmallest - 3); }

void* take_block(int kind) { return cache().take(kind); }

void give_block(int kind, void* block) { cache().give(kind, block); }

void set_cache_limit(size_t bytes) {
  const std::lock_guard<std::mutex> lock(cache().mutex);
  cache().limit = bytes;
  cache().shrink(bytes);
}

bool cache_is_on() { return cache().limit.load(std::memory_order_relaxed) != 0; }

void empty_cache() {
  const std::lock_guard<std::mutex> lock(cache().mutex);
  cache().shrink(0);
}

CacheStats cache_stats() { return cache().stats(); }

}  // namespace ulpgrad
