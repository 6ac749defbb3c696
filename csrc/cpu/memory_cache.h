// Blocks of memory for results, kept when they are let go. A new mapping is paged in by the system at every use, about
// 0.25 us per 4 KiB, which is more than most kernels take to fill it; a block that was just let go is often still in
// the processor's cache.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ulpgrad {

constexpr int kBlockSizes = 8 * 36;  // eight for each doubling, from 1 KiB to 64 TiB: at most an eighth is left unused

// The kind of block that serves `bytes`; -1 where the system's own allocator is better (little) or must refuse (far too
// much).
int block_kind(size_t bytes);

// Bytes of a block of this kind.
size_t block_bytes(int kind);

// A block aligned to 64 bytes, contents undefined; null if the system has no more memory, even after all kept blocks
// were given back to it.
void* take_block(int kind);

// Keeps a block of this kind for the next one who takes it. What would be more than the limit goes back to the system,
// kinds unused for longest first.
void give_block(int kind, void* block);

// The most bytes that are kept; 0 switches the cache off.
void set_cache_limit(size_t bytes);
bool cache_is_on();

// Gives all kept blocks back to the system.
void empty_cache();

struct CacheStats {
  size_t in_use, peak, cached, limit;  // bytes
  uint64_t reused, allocated;          // blocks
};

CacheStats cache_stats();

}  // namespace ulpgrad
