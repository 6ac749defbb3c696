// Images are shared out to the threads, each with planes of its own.
#include "conv_ladder.h"
#include "threads.h"

namespace ulpgrad::ULPGRAD_ISA {

void convolve_threads(const Windows& w) {
  parallel_for(w.parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      convolve_tiles(w, part * w.images / w.parts, (part + 1) * w.images / w.parts, w.work + part * w.part_size());
    }
  });
}

}  // namespace ulpgrad::ULPGRAD_ISA
