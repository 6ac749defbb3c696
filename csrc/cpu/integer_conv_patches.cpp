// Integer convolution by patches: what a window sees, row by row of the filter, with all channels of a pixel side by
// side. A patch is then a few long runs of the image, and those of several small images make one product.
#include <algorithm>
#include <cstring>

#include "integer_conv.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kPatchBytes = int64_t{1} << 20;       // of a block
constexpr int64_t kLeastBlock = 64, kMostBlock = 1024;  // pixels
constexpr int64_t kLargeImage = 256;                    // pixels of an image that makes blocks of its own
constexpr int64_t kGrain = int64_t{1} << 18;            // products that make one more thread worth its start
constexpr int64_t kTogether = 16;                       // channels that are turned at a time

// to[step][channel] = from[channel][step], for `count` steps that follow each other.
template <typename T>
void turn(const T* from, int64_t channel_step, int64_t channels, int64_t count, T* to, int64_t to_step) {
  int64_t c = 0;
  for (; c + kTogether <= channels; c += kTogether) {
    for (int64_t p = 0; p < count; ++p) {
      for (int64_t i = 0; i < kTogether; ++i) to[p * to_step + c + i] = from[(c + i) * channel_step + p];
    }
  }
  for (; c < channels; ++c) {
    for (int64_t p = 0; p < count; ++p) to[p * to_step + c] = from[c * channel_step + p];
  }
}

// An image whose channels lie side by side.
template <typename T>
struct Pixels {
  const T* data;
  int64_t row, column;  // strides
};

// What one output sees: [row of the filter][column][channel].
template <typename T>
T* patch(const IntegerWindows& w, const Pixels<T>& x, int64_t row, int64_t column, T* to) {
  const T pad = static_cast<T>(w.pad);
  const int64_t top = row * w.stride.first - w.padding.first, left = column * w.stride.second - w.padding.second;
  const int64_t span = w.dilation.second * (w.kernel_cols - 1) + 1, run = w.kernel_cols * w.channels;
  const bool whole = w.dilation.second == 1 && x.column == w.channels && left >= 0 && left + span <= w.width;
  for (int64_t i = 0; i < w.kernel_rows; ++i, to += run) {
    const int64_t y = top + i * w.dilation.first;
    if (y < 0 || y >= w.height) {
      std::fill(to, to + run, pad);
    } else if (whole) {
      std::memcpy(to, x.data + y * x.row + left * x.column, static_cast<size_t>(run) * sizeof(T));
    } else {
      for (int64_t j = 0; j < w.kernel_cols; ++j) {
        const int64_t z = left + j * w.dilation.second;
        T* const at = to + j * w.channels;
        if (z < 0 || z >= w.width) {
          std::fill(at, at + w.channels, pad);
        } else {
          std::memcpy(at, x.data + y * x.row + z * x.column, static_cast<size_t>(w.channels) * sizeof(T));
        }
      }
    }
  }
  return to;
}

// Patches of a group's outputs [first, first + count), counted through all images. Images that lie channels first are
// turned one at a time, into `turned`.
template <typename T>
void write_patches(const IntegerConv& job, int64_t group, int64_t first, int64_t count, T* to, T* turned) {
  const IntegerWindows& w = job.w;
  Pixels<T> x{};
  for (int64_t p = first, seen = -1; p < first + count; ++p) {
    const int64_t image = p / w.pixels(), pixel = p % w.pixels();
    if (image != seen) {
      const T* const from =
          reinterpret_cast<const T*>(job.image) + image * job.image_step + group * w.channels * w.channel_step;
      if (w.channel_step == 1) {
        x = {from, w.row_step, w.col_step};
      } else {
        x = {turned, w.width * w.channels, w.channels};
        for (int64_t y = 0; y < w.height; ++y) {
          turn(from + y * w.row_step, w.channel_step, w.channels, w.width, turned + y * x.row, x.column);
        }
      }
      seen = image;
    }
    to = patch(w, x, pixel / w.out_cols, pixel % w.out_cols, to);
  }
}

template <typename Body>
void with_codes(Codes codes, const Body& body) {
  if (codes == Codes::int8) return body(int8_t());
  if (codes == Codes::uint8) return body(uint8_t());
  body(int16_t());
}

// The weights, [output][row][column][channel] as patches are.
void turn_weights(const IntegerConv& job, char* to) {
  const int64_t places = job.w.kernel_rows * job.w.kernel_cols, k = job.w.taps();
  const int64_t grain = std::max<int64_t>(1, kGrain / (4 * k));
  with_codes(job.gemm.a_codes, [&](auto code) {
    using T = decltype(code);
    parallel_for(job.groups * job.gemm.m, grain, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) {
        turn(reinterpret_cast<const T*>(job.weight) + o * k, places, job.w.channels, places,
             reinterpret_cast<T*>(to) + o * k, job.w.channels);
      }
    });
  });
}

// Products [output][image, pixel] of images from `image` on, to where they belong.
void put(const IntegerConv& job, const char* from, int64_t group, int64_t image, int64_t count) {
  const int64_t row = job.w.pixels() * job.size_out;
  for (int64_t o = 0; o < job.gemm.m; ++o) {
    char* to = job.out + ((image * job.groups + group) * job.gemm.m + o) * row;
    for (int64_t at = 0; at < count; at += job.w.pixels(), from += row, to += job.groups * job.gemm.m * row) {
      std::memcpy(to, from, static_cast<size_t>(row));
    }
  }
}

}  // namespace

void convolve_patches(const IntegerConv& job) {
  const IntegerWindows& w = job.w;
  const int64_t k = w.taps(), pixels = w.pixels(), filters_bytes = job.gemm.m * k * job.size_w;
  const int threads = threads_for(job.images * pixels * job.groups * job.gemm.m * k, kGrain);
  // Blocks are parts of large images, or several small ones whose products are put in their places afterwards.
  const int64_t most = std::clamp<int64_t>(kPatchBytes / (k * job.size_x), kLeastBlock, kMostBlock);
  const int64_t share = std::max<int64_t>(1, job.images / threads);
  const int64_t together = pixels < kLargeImage ? std::clamp<int64_t>(most / pixels, 1, share) : 1;
  const int64_t parts = together > 1 ? 1 : (pixels + most - 1) / most;
  const int64_t each = together > 1 ? together * pixels : (pixels + parts - 1) / parts;
  const int64_t blocks = together > 1 ? (job.images + together - 1) / together : job.images * parts;
  const bool stands = w.channel_step == 1 && w.is_plain() && (together == 1 || job.image_step == pixels * w.col_step);
  const auto rounded = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
  const int64_t patch_bytes = stands ? 0 : rounded(each * k * job.size_x);
  const int64_t turned_bytes = w.channel_step == 1 ? 0 : rounded(w.height * w.width * w.channels * job.size_x);
  const int64_t sums_bytes = together > 1 ? job.gemm.m * each * job.size_out : 0;
  char* const weights = static_cast<char*>(scratch(Slot::weights, static_cast<size_t>(job.groups * filters_bytes)));
  turn_weights(job, weights);
  const int64_t tasks = blocks * job.groups;
  parallel_tasks(tasks, static_cast<int>(std::min<int64_t>(threads, tasks)), [&](int64_t task) {
    const int64_t group = task % job.groups, block = task / job.groups, image = block / parts * together;
    const int64_t pixel = block % parts * each, first = image * pixels + pixel;
    const int64_t count = std::min(each, together > 1 ? (job.images - image) * pixels : pixels - pixel);
    char* const memory =
        static_cast<char*>(scratch(Slot::caller, static_cast<size_t>(patch_bytes + turned_bytes + sums_bytes)));
    char *const turned = memory + patch_bytes, *const sums = turned + turned_bytes;
    IntegerGemm g = job.gemm;
    g.n = count, g.a = weights + group * filters_bytes, g.b = memory, g.b_row = 1, g.b_col = k;
    if (stands) {
      g.b = job.image + (image * job.image_step + group * w.channels + pixel * w.col_step) * job.size_x;
      g.b_col = w.col_step;
    } else {
      with_codes(g.b_codes, [&](auto code) {
        using T = decltype(code);
        write_patches(job, group, first, count, reinterpret_cast<T*>(memory), reinterpret_cast<T*>(turned));
      });
    }
    if (together > 1) {
      g.c = sums, g.c_row = count;
    } else {
      g.c = job.out + ((image * job.groups + group) * g.m * pixels + pixel) * job.size_out;
    }
    multiply(g, job.accumulator, job.isa);
    if (together > 1) put(job, sums, group, image, count);
  });
}

}  // namespace ulpgrad
