// The tiled rungs of convolution on the host, for the sanitizers: each against the direct one, bit for bit on small
// whole numbers. With WITHOUT_BARRIERS in the environment the same kernels race, which the thread sanitizer must see.
#include <cstdio>
#include <cstdlib>

#include "host.h"

namespace {
const bool with_barriers = std::getenv("WITHOUT_BARRIERS") == nullptr;
}
#define __syncthreads() (with_barriers ? ulpgrad::host::wait_for_block() : static_cast<void>(0))

#include "conv_direct.cu"
#include "conv_integer.cu"
#include "conv_lay.cu"
#include "conv_matrix.cu"
#include "conv_registers.cu"
#include "conv_tiles.cu"
#include "conv_weight_matrix.cu"
#include "conv_weight_registers.cu"
#include "conv_weight_sum.cu"

using namespace ulpgrad;

namespace {

int wrong = 0;

template <class... Ts>
void launch(void (*kernel)(Ts...), std::array<unsigned, 3> grid, unsigned threads, size_t shared, Ts... arguments) {
  const unsigned block[] = {threads, 1, 1};
  void* const pointers[] = {&arguments...};
  if (const char* fault = host::run(kernel, grid.data(), block, shared, kinds_of(kernel).c_str(), pointers)) {
    std::printf("%s\n", fault), ++wrong;
  }
}

template <class T>
std::vector<T> whole_numbers(size_t count, int seed) {
  std::vector<T> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = narrow<T>(static_cast<Wide<T>>((i * 7 + seed) % 11) - 5);
  return values;
}

template <class T>
void expect_same(const char* what, const std::vector<T>& found, const std::vector<T>& wanted) {
  if (std::memcmp(found.data(), wanted.data(), found.size() * sizeof(T)) != 0) std::printf("%s\n", what), ++wrong;
}

constexpr int C = 16, O = 24, H = 9, W = 10, K = 3, OH = 5, OW = 5;
constexpr Convolution CONVOLUTION = {2, 1, C, O, {H, K, 2, 1, 1, OH}, {W, K, 2, 1, 1, OW}};
constexpr Strides X = {C * H * W, 1, W * C, C}, G = {O * OH * OW, 1, OW * O, O};              // channels last
constexpr Strides BY_OUTPUT = {K * K * C, 1, K * C, C}, BY_INPUT = {1, K * K * O, K * O, O};  // what is summed is last
constexpr Strides FILTERS = {C * K * K, K * K, K, 1};
constexpr unsigned ROWS = 2 * OH * OW, PHASE_ROWS = 2 * OH * OW;  // 9 x 10 pixels in phases of 5 x 5, or fewer
constexpr After NONE = {};

template <class T>
void check() {
  const T* const no_bias = nullptr;
  const auto x = whole_numbers<T>(2 * C * H * W, 1), g = whole_numbers<T>(2 * O * OH * OW, 2);
  const auto by_output = whole_numbers<T>(O * C * K * K, 3), by_input = whole_numbers<T>(O * C * K * K, 4);
  const T *xs = x.data(), *gs = g.data(), *wo = by_output.data(), *wi = by_input.data();

  std::vector<T> y(g.size()), same_y(g.size());
  launch(conv_forward_direct<T>, {2, 1, 1}, 256, 0, y.data(), xs, wo, no_bias, no_bias, no_bias, CONVOLUTION, X,
         BY_OUTPUT, G, NONE);
  launch(conv_tiles<T, false>, {cdiv(ROWS, 16u), 2, 1}, 256, 0, same_y.data(), xs, wo, no_bias, no_bias, no_bias,
         CONVOLUTION, X, BY_OUTPUT, G, NONE);
  expect_same("forward, tiles", same_y, y);
  launch(conv_registers<T, false>, {1, 1, 1}, 256, 0, same_y.data(), xs, wo, no_bias, no_bias, no_bias, CONVOLUTION, X,
         BY_OUTPUT, G, NONE, 1);
  expect_same("forward, registers", same_y, y);

  std::vector<T> dx(x.size()), same_dx(x.size());
  launch(conv_input_gradient_direct<T>, {2, 1, 1}, 256, 0, dx.data(), gs, wi, CONVOLUTION, G, BY_INPUT, X);
  launch(conv_tiles<T, true>, {cdiv(PHASE_ROWS, 16u), 1, 4}, 256, 0, same_dx.data(), gs, wi, no_bias, no_bias, no_bias,
         CONVOLUTION, G, BY_INPUT, X, NONE);
  expect_same("input gradient, tiles", same_dx, dx);
  launch(conv_registers<T, true>, {1, 1, 4}, 256, 0, same_dx.data(), gs, wi, no_bias, no_bias, no_bias, CONVOLUTION, G,
         BY_INPUT, X, NONE, 1);
  expect_same("input gradient, registers", same_dx, dx);

  std::vector<T> dw(by_output.size()), same_dw(by_output.size());
  std::vector<Wide<T>> parts(3 * dw.size());
  launch(conv_weight_gradient_direct<T>, {4, 1, 1}, 256, 0, dw.data(), gs, xs, CONVOLUTION, G, X, FILTERS);
  launch(conv_weight_registers<T>, {2, 1, 3}, 256, 0, parts.data(), gs, xs, CONVOLUTION, G, X, 3);
  launch(conv_weight_sum<T>, {4, 1, 1}, 256, 0, same_dw.data(), static_cast<const Wide<T>*>(parts.data()), CONVOLUTION,
         FILTERS, 3, no_bias, no_bias, G, X);
  expect_same("weight gradient, registers", same_dw, dw);

  constexpr size_t SHARED = 4 * 32 * (128 + 64) * 2;
  launch(conv_matrix<T, false, 64>, {1, 1, 1}, 128, SHARED, same_y.data(), xs, wo, no_bias, no_bias, no_bias,
         CONVOLUTION, X, BY_OUTPUT, G, NONE);
  expect_same("forward, matrix units", same_y, y);
  launch(conv_matrix<T, true, 64>, {1, 1, 4}, 128, SHARED, same_dx.data(), gs, wi, no_bias, no_bias, no_bias,
         CONVOLUTION, G, BY_INPUT, X, NONE);
  expect_same("input gradient, matrix units", same_dx, dx);
  launch(conv_weight_matrix<T, 64>, {3, 1, 3}, 128, SHARED, parts.data(), gs, xs, CONVOLUTION, G, X, 3);
  launch(conv_weight_sum<T>, {4, 1, 1}, 256, 0, same_dw.data(), static_cast<const Wide<T>*>(parts.data()), CONVOLUTION,
         FILTERS, 3, no_bias, no_bias, G, X);
  expect_same("weight gradient, matrix units", same_dw, dw);

  // Scale, bias and residual in whole numbers, and results in float32: an epilogue's own road through memory.
  const auto bias = whole_numbers<T>(O, 5), scale = whole_numbers<T>(O, 6), residual = whole_numbers<T>(g.size(), 7);
  const T *bs = bias.data(), *ss = scale.data(), *rs = residual.data();
  const After after = {{O * OH * OW, OH * OW, OW, 1}, RELU, 1, FLOAT32};  // the residual's channels come first
  std::vector<float> wide(g.size()), same_wide(g.size());
  T* const to = reinterpret_cast<T*>(wide.data());
  T* const same_to = reinterpret_cast<T*>(same_wide.data());
  launch(conv_forward_direct<T>, {2, 1, 1}, 256, 0, to, xs, wo, bs, ss, rs, CONVOLUTION, X, BY_OUTPUT, G, after);
  launch(conv_registers<T, false>, {1, 1, 1}, 256, 0, same_to, xs, wo, bs, ss, rs, CONVOLUTION, X, BY_OUTPUT, G, after,
         1);
  expect_same("epilogue, registers", same_wide, wide);
  std::fill(same_wide.begin(), same_wide.end(), -1.f);
  launch(conv_matrix<T, false, 64>, {1, 1, 1}, 128, SHARED, same_to, xs, wo, bs, ss, rs, CONVOLUTION, X, BY_OUTPUT, G,
         after);
  expect_same("epilogue, matrix units", same_wide, wide);
}

// Operands of 16 bits in planes of bytes, against their sums modulo 2^32.
void check_integers() {
  const auto codes = [](size_t count, unsigned seed) {
    std::vector<short> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<short>((i + seed) * 40503u >> 3);
    return values;
  };
  const auto planes_of = [](const std::vector<short>& values) {
    std::vector<Byte> planes(2 * values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      planes[i].bits = static_cast<unsigned char>(values[i]);
      planes[values.size() + i].bits = static_cast<unsigned char>(values[i] >> 8);
    }
    return planes;
  };
  const auto x = codes(2 * C * H * W, 1), w = codes(O * C * K * K, 2);
  const auto x_planes = planes_of(x), w_planes = planes_of(w);
  std::vector<int> y(2 * O * OH * OW), wanted(y.size());
  for (int image = 0; image < 2; ++image)
    for (int row = 0; row < OH; ++row)
      for (int column = 0; column < OW; ++column)
        for (int output = 0; output < O; ++output) {
          unsigned sum = 0;
          for (int i = 0; i < K; ++i)
            for (int j = 0; j < K; ++j)
              for (int k = 0; k < C; ++k) {
                const int top = row * 2 - 1 + i, left = column * 2 - 1 + j;
                if (!inside(top, H) || !inside(left, W)) continue;
                sum += static_cast<unsigned>(x[offset_of(X, image, k, top, left)] *
                                             w[offset_of(BY_OUTPUT, output, k, i, j)]);
              }
          wanted[offset_of(G, image, output, row, column)] = static_cast<int>(sum);
        }
  const auto images = static_cast<long long>(x.size()), filters = static_cast<long long>(w.size());
  const Passes passes = {4, {{images, filters, 1, 1, 0}, {images, 0, 1, 0, 8}, {0, filters, 0, 1, 0}, {0, 0, 0, 0, 8}}};
  const long long* const no_bias = nullptr;
  const int* const no_factor = nullptr;
  const unsigned* const no_words = nullptr;
  long long* const no_room = nullptr;
  Rule rule = {};
  rule.bytes = 4, rule.is_sum = 1;
  void* const sums = y.data();
  launch(conv_integer<64>, {1, 1, 1}, 128, 4 * 64 * (128 + 64), sums, x_planes.data(), w_planes.data(), CONVOLUTION, X,
         BY_OUTPUT, G, passes, no_room, no_bias, no_factor, no_factor, no_words, static_cast<unsigned char*>(nullptr),
         rule);
  expect_same("integers, matrix units", y, wanted);

  // Exact sums as codes of 64 bits that are the sums again, and what leaves 32 bits.
  std::vector<long long> wide(y.size()), room(128 * 64);
  std::vector<unsigned char> outside(y.size());
  rule.bytes = 8, rule.is_sum = 0, rule.low = -(1ll << 31), rule.high = (1ll << 31) - 1, rule.wraps = 1;
  launch(conv_integer<64>, {1, 1, 1}, 128, 4 * 64 * (128 + 64), static_cast<void*>(wide.data()), x_planes.data(),
         w_planes.data(), CONVOLUTION, X, BY_OUTPUT, G, passes, room.data(), no_bias, no_factor, no_factor, no_words,
         outside.data(), rule);
  expect_same("exact sums as codes", std::vector<int>(wide.begin(), wide.end()), wanted);
}

// Images of 13 channels, which come first, laid with their channels last and filled up to 16.
template <int CHANNELS>
void check_layout() {
  constexpr int GIVEN = 13, FILLED = 16;
  constexpr Strides first = {GIVEN * H * W, H * W, W, 1};
  const auto x = whole_numbers<unsigned>(2 * GIVEN * H * W, 1);
  std::vector<unsigned> laid(2 * H * W * FILLED, 1), wanted(laid.size());
  for (int image = 0; image < 2; ++image)
    for (int y = 0; y < H; ++y)
      for (int column = 0; column < W; ++column)
        for (int k = 0; k < GIVEN; ++k) {
          wanted[((image * H + y) * W + column) * FILLED + k] = x[offset_of(first, image, k, y, column)];
        }
  const unsigned tiles = cdiv(2 * H * W, 2048 / CHANNELS) * cdiv(FILLED, CHANNELS);
  launch(lay_channels_last<unsigned, CHANNELS>, {tiles, 1, 1}, 256, 0, laid.data(), x.data(), 2 * H * W, H, W, GIVEN,
         FILLED, first);
  expect_same("channels last", laid, wanted);
}

}  // namespace

int main() {
  check<Bfloat16>();
  check<float>();
  check_integers();
  check_layout<8>();
  check_layout<64>();
  return wrong == 0 ? 0 : 1;
}
