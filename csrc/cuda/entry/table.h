// The kernels of csrc/cuda as nvcc built them (ULPGRAD_BUILD_CUDA), for C++: found by name, launched on raw pointers
// and a stream.
//
//   const ulpgrad::cuda::Entry& kernel = ulpgrad::cuda::find("matmul_tiles<float>");
//   void* arguments[] = {&c, &a, &b, &product};  // addresses of what kernel.kinds says, here "p8 p8 p8 s80"
//   ulpgrad::cuda::launch(kernel, {blocks, 1, 1}, {32, 32, 1}, 0, arguments, stream);
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "../kinds.h"

namespace ulpgrad::cuda {

struct Entry {
  std::string name;
  const void* kernel;
  std::string kinds;  // of its parameters: see kinds.h
};

using Size = std::array<unsigned, 3>;

// All that were built.
const std::vector<Entry>& entries();

// std::invalid_argument where there is none of that name.
const Entry& find(const std::string& name);

// As cudaLaunchKernel takes it; std::runtime_error with CUDA's words where it is refused.
void launch(const Entry& entry, const Size& grid, const Size& block, size_t shared, void** arguments, void* stream);

// What each family of kernels adds.
std::vector<Entry> matmul_entries();
std::vector<Entry> conv_entries();
std::vector<Entry> pool_entries();

}  // namespace ulpgrad::cuda

// One entry, from the kernel as it is written down.
#define ULPGRAD_ENTRY(...) \
  Entry { #__VA_ARGS__, reinterpret_cast<const void*>(&__VA_ARGS__), kinds_of(&__VA_ARGS__) }
