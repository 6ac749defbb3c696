// Convolution with pixels in the lanes of vectors. Where an image is small, turning all weights so that outputs lie in
// lanes takes longer than the sums do; here a tile's weights are copied as they lie, a few at a time, and multiplied
// while they are in the first cache. Rows of a plane follow each other, so that an image is one long row, in which the
// sums between rows are thrown away.
#include <algorithm>
#include <array>

#include "conv_correlate.h"

namespace ulpgrad {
namespace {

// What is summed in which order follows from the shapes alone, so that bits do not depend on a machine's caches.
constexpr int64_t kFewPixels = 128;        // for which turning the weights does not pay
constexpr int64_t kManyWeights = 1 << 20;  // of filters of one tap, which are turned in whole squares: fewer do pay
constexpr int64_t kSlack = 32;             // values that may be read behind a plane
constexpr int64_t kMostOutputs = 16;       // of a tile on any instruction set

// The outputs of a group in tiles of nearly the same size.
struct OutputTiles {
  int64_t outputs, count;
  OutputTiles(int64_t outputs, int64_t most) : outputs(outputs), count(ceil_div(outputs, most)) {}
  int64_t first(int64_t i) const { return i * outputs / count; }
};

template <typename S>
class PixelSums {
 public:
  using T = Wide<S>;

  PixelSums(const Correlation<S>& c, const Planes& planes, Isa isa)
      : c_(c),
        planes_(planes),
        tiles_(conv_tiles(isa, T())),
        finish_(conv_finish(isa, T())),
        in_(table<ConvMoves>(isa).*ConvRoad<S>::in),
        out_(table<ConvMoves>(isa).*ConvRoad<S>::out),
        isa_(isa),
        outputs_(c.outputs, tiles_.outputs),
        held_(round_up(planes.plane_units(), 2 * tiles_.lanes)) {
    for (int64_t p = 0; p < c.inputs; ++p) {
      for (const int64_t offset : planes.tap_offset) offsets_.push_back(p * planes.block + offset);
    }
  }

  int64_t tiles() const { return outputs_.count; }
  int64_t plane() const { return round_up(planes_.units() + kSlack, 16); }
  // What run() needs for a number of spans.
  int64_t memory(int64_t spans) const {
    return tiles_.outputs * (kConvPixelRow + (spans + (c_.residual.data ? 1 : 0)) * held_) + kSlack;
  }

  void fill(int64_t group, int64_t span, T* plane) const {
    Images<const S> source = c_.x;
    source.data += group * c_.inputs * source.channel;
    planes_.fill(source, planes_.span(span), c_.inputs, in_, plane);
    std::fill(plane + planes_.units(), plane + planes_.units() + kSlack, T(0));
  }

  // A tile of outputs for spans [first, first + count), whose planes lie plane() apart.
  void run(int64_t group, int64_t tile, int64_t first, int64_t count, const T* planes, T* memory) const {
    const int64_t k = static_cast<int64_t>(offsets_.size());
    const int64_t output = outputs_.first(tile), outputs = outputs_.first(tile + 1) - output;
    const int64_t channel = group * c_.outputs + output;
    T *const weights = memory, *const sums = memory + tiles_.outputs * kConvPixelRow;
    const Values start = values(c_.is_scaled() ? nullptr : c_.bias, channel, outputs);
    const S* const filters = c_.weight + group * c_.weight_group + output * c_.weight_output;
    for (int64_t done = 0; done == 0 || done < k; done += kConvPixelSteps) {
      const int64_t steps = std::min(kConvPixelSteps, k - done);
      for (int64_t j = 0; j < outputs; ++j) {
        in_(filters + j * c_.weight_output + done, 0, 1, 1, steps, weights + j * kConvPixelRow, 1, 1, 0);
      }
      for (int64_t i = 0; i < count; ++i) {
        const Span s = planes_.span(first + i);
        tiles_.pixels_row({planes + i * plane(), offsets_.data() + done, steps, weights, done ? nullptr : start.data(),
                           sums + i * tiles_.outputs * held_, held_, outputs, length(s)});
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      write(planes_.span(first + i), channel, outputs, sums + i * tiles_.outputs * held_,
            sums + count * tiles_.outputs * held_);
    }
  }

 private:
  using Values = std::array<T, kMostOutputs>;

  Values values(const S* of, int64_t channel, int64_t outputs) const {
    Values all{};
    for (int64_t j = 0; of && j < outputs; ++j) all[j] = wide_value(of[channel + j]);
    return all;
  }

  // Where a row of a span begins in images.
  template <typename Of>
  static Of* place(const Images<Of>& in, const Span& s, int64_t channel, int64_t slice, int64_t row) {
    return in.data + s.image * in.image + channel * in.channel + (s.slice + slice) * in.slice + (s.row + row) * in.row +
           s.column * in.column;
  }

  // Of the row that a span is.
  int64_t length(const Span& s) const {
    return (s.slices - 1) * planes_.slice_units() + (s.rows - 1) * planes_.row_units() + s.columns;
  }

  // `memory` is for residuals.
  void write(const Span& s, int64_t channel, int64_t outputs, T* sums, T* memory) const {
    const int64_t width = round_up(length(s), tiles_.lanes);
    const Values scale = values(c_.scale, channel, outputs), bias = values(c_.bias, channel, outputs);
    const Images<const S>& x = c_.residual;
    for (int64_t j = 0; x.data && j < outputs; ++j) {
      for (int64_t i = 0; i < s.slices * s.rows; ++i) {
        const int64_t z = i / s.rows, r = i % s.rows;
        in_(place(x, s, channel + j, z, r), 0, x.column, 1, s.columns,
            memory + j * held_ + z * planes_.slice_units() + r * planes_.row_units(), 1, 1, 0);
      }
    }
    ConvAfter<T> after{sums, held_, width, outputs, nullptr, nullptr, true, nullptr, held_};
    if (c_.is_scaled()) {
      after.scale = c_.scale ? scale.data() : nullptr, after.bias = c_.bias ? bias.data() : nullptr;
      after.residual = c_.residual_first && x.data ? memory : nullptr;
      conv_after(isa_, after);
    }
    if (c_.activation != Activation::none) finish_.activate(sums, held_, width, outputs, c_.activation);
    if (x.data && !c_.residual_first) {
      after.scale = after.bias = nullptr, after.residual = memory;
      conv_after(isa_, after);
    }
    for (int64_t j = 0; j < outputs; ++j) {
      for (int64_t z = 0; z < s.slices; ++z) {
        out_(sums + j * held_ + z * planes_.slice_units(), planes_.row_units(), s.columns, s.rows,
             place(c_.y, s, channel + j, z, 0), c_.y.column, c_.y.row);
      }
    }
  }

  const Correlation<S>& c_;
  const Planes& planes_;
  const ConvTiles<T>& tiles_;
  const ConvFinish<T>& finish_;
  const ConvMoveIn<S, T> in_;
  const ConvMoveOut<T, S> out_;
  const Isa isa_;
  const OutputTiles outputs_;
  const int64_t held_;  // sums of an output in a span
  std::vector<int64_t> offsets_;
};

}  // namespace

template <typename S>
bool suits_pixels(const Correlation<S>& c) {
  if (c.images * c.depth.positions * c.positions[0] * c.positions[1] > kFewPixels) return false;
  if (c.taps.size() == 1 && c.outputs * c.inputs < kManyWeights) return false;
  if (c.finite || c.places.data || c.weight_input != static_cast<int64_t>(c.taps.size())) return false;
  for (size_t t = 0; t < c.taps.size(); ++t) {
    if (c.taps[t].weight != static_cast<int64_t>(t)) return false;
  }
  return true;
}

template <typename S>
void by_pixels(const Correlation<S>& c, Isa isa) {
  using T = Wide<S>;
  const Planes planes(c.images, c.positions, c.step, c.taps, c.inputs, kPlaneBytes / sizeof(T), 1, {1, 1}, 1, c.depth);
  const PixelSums<S> sums(c, planes, isa);
  const int64_t size = static_cast<int64_t>(sizeof(T)), spans = planes.spans() * c.groups;
  T* const shared = static_cast<T*>(scratch(Slot::weights, spans * sums.plane() * size));
  const auto at = [&](int64_t group, int64_t span) { return shared + (group * planes.spans() + span) * sums.plane(); };
  parallel_for(spans, std::max<int64_t>(1, (1 << 14) / (planes.units() + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      sums.fill(i / planes.spans(), i % planes.spans(), at(i / planes.spans(), i % planes.spans()));
    }
  });
  const int64_t tasks = c.groups * sums.tiles();
  allocating_tasks(tasks, useful_threads(c.products(), tasks), [&](int64_t task) {
    const int64_t group = task / sums.tiles();
    T* const memory = static_cast<T*>(scratch(Slot::caller, sums.memory(planes.spans()) * size));
    sums.run(group, task % sums.tiles(), 0, planes.spans(), at(group, 0), memory);
  });
}

template bool suits_pixels(const Correlation<float>&);
template bool suits_pixels(const Correlation<double>&);
template bool suits_pixels(const Correlation<Bfloat16>&);
template bool suits_pixels(const Correlation<Float16>&);
template void by_pixels(const Correlation<float>&, Isa);
template void by_pixels(const Correlation<double>&, Isa);
template void by_pixels(const Correlation<Bfloat16>&, Isa);
template void by_pixels(const Correlation<Float16>&, Isa);

}  // namespace ulpgrad
