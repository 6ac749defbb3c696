// For the host: the copy unit of sm_90 and its barriers, as NVIDIA documents them (PTX ISA, "Tensors", "mbarrier";
// CUDA driver API, "Tensor Map Object Management").
//
// Copies take their time: until somebody waits for a copy and has come in vain, the place that it goes to holds what is
// no number. So a tile that is read before it has arrived is seen, and one that is overwritten while it is still read.
// Threads are fibers here.
#pragma once

#include <array>

#include "host.h"

namespace ulpgrad::host {

// A tensor map in plain words, as kernels/cuda_tensor_map.py writes it where there is no driver. Axes begin with the
// fastest one, as the driver takes them.
struct MapFields {
  unsigned long long address;
  long long strides[4];               // bytes; the first one is an element's
  int sizes[4], box[4];               // `box` of tiles; elements
  int lower[2], upper[2], stride[2];  // of im2col: corners and steps of columns, then of rows
  int channels, pixels;               // of im2col: of one copy
};
static_assert(sizeof(MapFields) <= sizeof(TensorMap));

inline MapFields fields_of(const TensorMap& map) {
  MapFields fields;
  std::memcpy(&fields, &map, sizeof fields);
  return fields;
}

using Coordinates = std::array<int, 4>;

// Calls each(number, coordinates) for the pixels of one copy: first with the base coordinates that are given, which
// must lie in the box of base coordinates, then along it; offsets are added to each.
template <class Each>
void walk_pixels(const MapFields& map, Coordinates at, const std::array<int, 2>& offset, const Each& each) {
  const auto last = [&](int axis) { return map.sizes[axis] - 1 + map.upper[axis - 1]; };
  for (int axis : {1, 2}) {
    if (at[axis] < map.lower[axis - 1] || at[axis] > last(axis)) {
      give_up("a copy of pixels begins with base coordinates beside their box");
    }
  }
  for (int pixel = 0; pixel < map.pixels; ++pixel) {
    each(pixel, Coordinates{at[0], at[1] + offset[0], at[2] + offset[1], at[3]});
    at[1] += map.stride[0];
    if (at[1] > last(1)) at[1] = map.lower[0], at[2] += map.stride[1];
    if (at[2] > last(2)) at[2] = map.lower[1], ++at[3];
  }
}

// The pattern of 128 bytes: bits 4 to 6 of an address in shared memory are xored with bits 7 to 9.
constexpr size_t swizzled_address(size_t address) { return address ^ (address >> 7 & 7) << 4; }

// Two bytes from an array, or zero beside it, to `offset` of a tile.
inline void copy_element(const MapFields& map, const Coordinates& from, unsigned char* to, size_t offset) {
  long long place = 0;
  bool is_there = true;
  for (int axis = 0; axis < 4; ++axis) {
    is_there &= from[axis] >= 0 && from[axis] < map.sizes[axis];
    place += from[axis] * map.strides[axis];
  }
  const auto source = reinterpret_cast<const unsigned char*>(static_cast<uintptr_t>(map.address)) + place;
  unsigned char* const base = dynamic_shared();
  unsigned char* const target = base + swizzled_address(static_cast<size_t>(to - base) + offset);
  if (is_there) {
    std::memcpy(target, source, 2);
  } else {
    std::memset(target, 0, 2);
  }
}

struct Phases {
  unsigned char phase, arrivals;
  unsigned short missing;
  int bytes;
};
static_assert(sizeof(Phases) == sizeof(Mbarrier));

inline Phases& phases_of(Mbarrier* barrier) { return *reinterpret_cast<Phases*>(barrier); }

struct CopyUnderWay {
  Mbarrier* barrier;
  int bytes;
  std::function<void()> deliver;
};
inline std::vector<CopyUnderWay> copies_under_way;

inline void init(Mbarrier* barrier, int arrivals) {
  copies_under_way.erase(std::remove_if(copies_under_way.begin(), copies_under_way.end(),
                                        [&](const CopyUnderWay& one) { return one.barrier == barrier; }),
                         copies_under_way.end());
  phases_of(barrier) = {0, static_cast<unsigned char>(arrivals), static_cast<unsigned short>(arrivals), 0};
}

inline void complete_if_all_are_there(Phases& phases) {
  ++events;
  if (phases.missing == 0 && phases.bytes == 0) phases.phase ^= 1, phases.missing = phases.arrivals;
}

inline void arrive(Mbarrier* barrier, int bytes) {
  Phases& phases = phases_of(barrier);
  if (phases.missing == 0) {
    give_up("more threads arrived at a barrier than it was made for");
  }
  --phases.missing;
  phases.bytes += bytes;
  complete_if_all_are_there(phases);
}

// One copy at a time arrives, and only when somebody has come for it in vain.
inline void wait_for(Mbarrier* barrier, unsigned parity) {
  while (phases_of(barrier).phase == parity) {
    const auto next = std::find_if(copies_under_way.begin(), copies_under_way.end(),
                                   [&](const CopyUnderWay& one) { return one.barrier == barrier; });
    if (next != copies_under_way.end()) {
      const CopyUnderWay copy = *next;
      copies_under_way.erase(next);
      copy.deliver();
      phases_of(barrier).bytes -= copy.bytes;
      complete_if_all_are_there(phases_of(barrier));
    }
    let_others_run();
  }
}

inline void begin_copy(void* to, Mbarrier* barrier, int bytes, std::function<void()> deliver) {
  std::memset(to, POISON, bytes);
  copies_under_way.push_back({barrier, bytes, std::move(deliver)});
}

inline void copy_pixels(void* to, const TensorMap& map, Mbarrier* barrier, const Coordinates& at,
                        const std::array<int, 2>& offset) {
  const MapFields fields = fields_of(map);
  begin_copy(to, barrier, fields.pixels * fields.channels * 2, [=] {
    walk_pixels(fields, at, offset, [&](int pixel, Coordinates from) {
      for (int i = 0; i < fields.channels; ++i) {
        const size_t element = static_cast<size_t>(pixel) * fields.channels + i;
        copy_element(fields, from, static_cast<unsigned char*>(to), element * 2);
        ++from[0];
      }
    });
  });
}

inline void copy_box(void* to, const TensorMap& map, Mbarrier* barrier, const Coordinates& at) {
  const MapFields fields = fields_of(map);
  const int *const box = fields.box, count = box[0] * box[1] * box[2];
  begin_copy(to, barrier, count * 2, [=] {
    for (int i = 0; i < count; ++i) {
      const Coordinates from = {at[0] + i % fields.box[0], at[1] + i / fields.box[0] % fields.box[1],
                                at[2] + i / fields.box[0] / fields.box[1], 0};
      copy_element(fields, from, static_cast<unsigned char*>(to), static_cast<size_t>(i) * 2);
    }
  });
}

}  // namespace ulpgrad::host
