#include "scratch.h"

#include <memory>
#include <new>

namespace ulpgrad {
namespace {

constexpr std::align_val_t kLine{64};

struct Free {
  void operator()(void* p) const { ::operator delete(p, kLine); }
};

struct Block {
  std::unique_ptr<void, Free> memory;
  size_t bytes = 0;
};

}  // namespace

void* scratch(Slot slot, size_t bytes) {
  thread_local Block blocks[5];
  Block& block = blocks[static_cast<int>(slot)];
  if (block.bytes < bytes) {
    block.memory.reset();
    block.bytes = 0;
    block.memory.reset(::operator new(bytes, kLine));
    block.bytes = bytes;
  }
  return block.memory.get();
}

}  // namespace ulpgrad
