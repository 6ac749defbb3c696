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
#ifndef __CUDACC__
  if (!host::is_aligned(from, alignof(Packet<T, N>))) host::give_up("a packet that is not aligned");
#endif
  return *reinterpret_cast<const Packet<T, N>*>(from);
}

template <class T, int N>
__device__ inline void store_packet(T* to, const Packet<T, N>& packet) {
#ifndef __CUDACC__
  if (!host::is_aligned(to, alignof(Packet<T, N>))) host::give_up("a packet that is not aligned");
#endif
  *reinterpret_cast<Packet<T, N>*>(to) = packet;
}

}  // namespace ulpgrad
