// The plain rungs of the matrix product on the host, for the sanitizers: every layout and size, checked against three
// loops. With WITHOUT_BARRIERS in the environment the same kernels race, which the thread sanitizer must see.
#include <cstdio>
#include <cstdlib>

#include "host.h"

namespace {
const bool with_barriers = std::getenv("WITHOUT_BARRIERS") == nullptr;
}
#define __syncthreads() (with_barriers ? ulpgrad::host::wait_for_block() : static_cast<void>(0))

#include "matmul_naive.cu"
#include "matmul_registers.cu"
#include "matmul_tiles.cu"

using namespace ulpgrad;

namespace {

int wrong = 0;

struct Rung {
  const char* name;
  void (*kernel)(float*, const float*, const float*, Product);
  Index tile[2];  // rows and columns of c, for a block
  unsigned block[3];
};

void check(const Rung& rung, Index m, Index n, Index k, bool turned) {
  std::vector<float> a(static_cast<size_t>(m * k)), b(static_cast<size_t>(k * n));
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i * 7 % 11) - 5;
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i * 5 % 13) - 6;
  std::vector<float> c(static_cast<size_t>(2 * m * n), -1);
  Product p{2, m, n, k, 0, k, 1, 0, n, 1};
  if (turned) {
    p.a_row = 1, p.a_column = m, p.b_row = 1, p.b_column = k;
  }
  const unsigned grid[] = {static_cast<unsigned>(cdiv(m, rung.tile[0]) * cdiv(n, rung.tile[1])), 1, 1};
  float* to = c.data();
  const float *from_a = a.data(), *from_b = b.data();
  void* arguments[] = {&to, &from_a, &from_b, &p};
  const char* fault = host::run(rung.kernel, grid, rung.block, 0, "p8 p8 p8 s80", arguments);
  if (fault != nullptr) std::printf("%s: %s\n", rung.name, fault), ++wrong;
  for (Index at = 0; at < 2 * m * n; ++at) {
    const Index i = at / n % m, j = at % n;
    float sum = 0;
    for (Index q = 0; q < k; ++q) {
      sum +=
          a[static_cast<size_t>(i * p.a_row + q * p.a_column)] * b[static_cast<size_t>(q * p.b_row + j * p.b_column)];
    }
    if (c[static_cast<size_t>(at)] != sum) std::printf("%s %lld x %lld x %lld\n", rung.name, m, n, k), ++wrong;
  }
}

}  // namespace

int main() {
  const Index sizes[][3] = {{9, 17, 19}, {66, 4, 20}};
  for (const auto& [m, n, k] : sizes) {
    for (const bool turned : {false, true}) {
      check({"naive", &matmul_naive<float>, {8, 32}, {32, 8, 1}}, m, n, k, turned);
      check({"tiles", &matmul_tiles<float, 8>, {8, 8}, {8, 8, 1}}, m, n, k, turned);
      check({"registers", &matmul_registers<float, 4>, {64, 64}, {256, 1, 1}}, m, n, k, turned);
    }
  }
  return wrong == 0 ? 0 : 1;
}
