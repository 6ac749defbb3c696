// Where a convolution reads: the taps of its filter, and the padded planes that images are copied into.
//
// A padded image is cut into phases, one for each (row, column) modulo the stride, so that neighbouring outputs read
// neighbouring values whatever the stride. On a plane of `pitch` columns, output (image, row, column) is position
// q = (image * rows + row) * pitch + column, and each tap is one offset that is the same for all q. The padding on the
// right of a row serves as the padding on the left of the next, and so for images that lie below one another. Positions
// of q that are no output hold garbage that is not copied out.
#pragma once

#include <cstdint>
#include <vector>

namespace ulpgrad {

// Strided images, and the zeros around them; negative padding crops.
template <typename T>
struct Images {
  const T* data;
  int64_t image, channel, row, column;  // strides, in values
  int64_t height, width;
  int64_t top = 0, left = 0;
};

struct Tap {
  int64_t row, column;  // on the padded image
  int64_t weight;       // where its weight lies, from the start of a filter's channel
};

// What one piece of work covers: some whole images, or some rows of one.
struct Span {
  int64_t image, images, row, rows;
};

// How outputs of rows x columns are cut into spans of about `target` positions, and where their taps read.
struct Planes {
  int64_t rows, columns;          // outputs of an image
  int64_t row_step, column_step;  // stride
  int64_t span_images, span_rows;
  int64_t pitch, image_rows;  // of a plane
  int64_t overshoot;          // rows of zeros below the last image of a plane
  int64_t plane, channel;     // size of a plane, and of all phases of a channel
  int64_t slack;              // readable values behind the last channel
  std::vector<int64_t> phase_row, phase_column;
  std::vector<int64_t> tap_offset;  // within a channel

  Planes(int64_t images, int64_t rows, int64_t columns, int64_t row_step, int64_t column_step, int64_t top,
         int64_t left, int64_t height, int64_t width, const std::vector<Tap>& taps, int64_t target);

  int64_t spans() const { return image_spans * row_spans; }
  Span span(int64_t i) const;
  // Positions that a span covers.
  int64_t positions(const Span& s) const { return s.images * image_rows * pitch; }
  // Values that `channels` take.
  int64_t size(int64_t channels) const { return channels * channel + slack; }
  // Offsets of all taps of `channels`, channel by channel.
  std::vector<int64_t> offsets(int64_t channels) const;

  // Copy a span's part of `channels` images, from data onwards, into planes.
  template <typename T>
  void fill(const Images<T>& x, const Span& s, int64_t channels, T* to) const;
  // Copy a span's part of `channels` arrays of outputs, zeros between them, each `to_row` apart.
  template <typename T>
  void fill_outputs(const Images<T>& g, const Span& s, int64_t channels, T* to, int64_t to_row) const;
  // The reverse: outputs of `channels`, each `from_row` apart, to images that lie as y says, the first channel at `to`.
  template <typename T>
  void take_outputs(const Images<T>& y, const Span& s, int64_t channels, const T* from, int64_t from_row, T* to) const;

 private:
  int64_t images, image_spans, row_spans;
};

}  // namespace ulpgrad
