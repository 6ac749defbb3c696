// Values that one instruction moves.
#pragma once

#include "device.cuh"

namespace ulpgrad {

// N neighbours, up to 16 bytes at a time.
template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Packet {
  T values[N];
};

template <class T, int N>
__device__ inline const Packet<T, N>& packet_at(const T* from) {
  return *reinterpret_cast<const Packet<T, N>*>(from);
}

}  // namespace ulpgrad
