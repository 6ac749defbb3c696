#include <stdexcept>

#include "table.h"

namespace ulpgrad::cuda {

namespace {

void check(cudaError_t status, const Entry& entry) {
  if (status != cudaSuccess) throw std::runtime_error(entry.name + ": " + cudaGetErrorString(status));
}

}  // namespace

const std::vector<Entry>& entries() {
  static const std::vector<Entry> all = [] {
    std::vector<Entry> found = matmul_entries();
    for (Entry& one : conv_entries()) found.push_back(std::move(one));
    for (Entry& one : pool_entries()) found.push_back(std::move(one));
    return found;
  }();
  return all;
}

const Entry& find(const std::string& name) {
  for (const Entry& one : entries()) {
    if (one.name == name) return one;
  }
  throw std::invalid_argument("there is no kernel " + name + ": kernels() lists those that were built");
}

void launch(const Entry& entry, const Size& grid, const Size& block, size_t shared, void** arguments, void* stream) {
  if (shared > 0) {  // what is there without asking is 48 KiB less the kernel's static memory
    const int bytes = static_cast<int>(shared);
    check(cudaFuncSetAttribute(entry.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), entry);
  }
  check(cudaLaunchKernel(entry.kernel, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), arguments,
                         shared, static_cast<cudaStream_t>(stream)),
        entry);
}

}  // namespace ulpgrad::cuda
