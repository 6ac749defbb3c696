#include "conv_planes.h"

#include <algorithm>
#include <cstring>

namespace ulpgrad {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows are short: a few moves of fixed size cost less than a call of memcpy.
template <typename T>
void copy_values(const T* from, int64_t count, T* to) {
  constexpr int64_t kBlock = 32 / sizeof(T);
  if (count >= kBlock) {
    for (int64_t i = 0; i + kBlock <= count; i += kBlock) memcpy(to + i, from + i, 32);
    memcpy(to + count - kBlock, from + count - kBlock, 32);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[i];
  }
}

// The places i in [0, count) for which first + i * step lies in [0, width).
struct Inside {
  int64_t begin, end;
  Inside(int64_t first, int64_t step, int64_t count, int64_t width)
      : begin(std::clamp<int64_t>(first < 0 ? ceil_div(-first, step) : 0, 0, count)),
        end(std::clamp<int64_t>(first < width ? ceil_div(width - first, step) : 0, begin, count)) {}
};

}  // namespace

Planes::Planes(int64_t images, int64_t rows, int64_t columns, int64_t row_step, int64_t column_step, int64_t top,
               int64_t left, int64_t height, int64_t width, const std::vector<Tap>& taps, int64_t target)
    : rows(rows), columns(columns), row_step(row_step), column_step(column_step), images(images) {
  int64_t last_row = 0, last_column = 0;
  for (const Tap& tap : taps) {
    last_row = std::max(last_row, tap.row);
    last_column = std::max(last_column, tap.column);
  }
  // What is read beyond a row or image must be padding of the next.
  const auto shared = [](int64_t outputs, int64_t step, int64_t last, int64_t padding, int64_t size) {
    const int64_t read = (outputs - 1) * step + last + 1, own = std::min(read, padding + size);
    return std::max(outputs, ceil_div(std::max(own, read - std::max<int64_t>(padding, 0)), step));
  };
  pitch = shared(columns, column_step, last_column, left, width);
  image_rows = shared(rows, row_step, last_row, top, height);
  if (image_rows * pitch <= target || rows == 1) {
    span_rows = rows;
    const int64_t most = std::max<int64_t>(1, target / (image_rows * pitch));
    span_images = std::max<int64_t>(1, ceil_div(images, std::max<int64_t>(1, ceil_div(images, most))));
  } else {
    span_rows = std::min(rows, std::max<int64_t>(1, target / pitch));
    span_rows = ceil_div(rows, ceil_div(rows, span_rows));
    span_images = 1;
    image_rows = span_rows + last_row / row_step;
  }
  image_spans = ceil_div(images, span_images);
  row_spans = ceil_div(rows, span_rows);
  overshoot = std::max<int64_t>(0, ((span_rows - 1) * row_step + last_row) / row_step + 1 - image_rows) + 1;
  plane = (span_images * image_rows + overshoot) * pitch;

  for (const Tap& tap : taps) {
    const int64_t row = tap.row % row_step, column = tap.column % column_step;
    size_t phase = 0;
    while (phase < phase_row.size() && (phase_row[phase] != row || phase_column[phase] != column)) ++phase;
    if (phase == phase_row.size()) {
      phase_row.push_back(row);
      phase_column.push_back(column);
    }
    tap_offset.push_back(static_cast<int64_t>(phase) * plane + tap.row / row_step * pitch + tap.column / column_step);
  }
  channel = static_cast<int64_t>(phase_row.size()) * plane;
  slack = last_row / row_step * pitch + last_column / column_step + 64;
}

Span Planes::span(int64_t i) const {
  const int64_t image = i / row_spans * span_images, row = i % row_spans * span_rows;
  return {image, std::min(span_images, images - image), row, std::min(span_rows, rows - row)};
}

std::vector<int64_t> Planes::offsets(int64_t channels) const {
  std::vector<int64_t> all;
  all.reserve(channels * tap_offset.size());
  for (int64_t c = 0; c < channels; ++c) {
    for (const int64_t offset : tap_offset) all.push_back(c * channel + offset);
  }
  return all;
}

template <typename T>
void Planes::fill(const Images<T>& x, const Span& s, int64_t channels, T* to) const {
  std::fill(to, to + size(channels), T(0));
  for (size_t phase = 0; phase < phase_row.size(); ++phase) {
    const int64_t y0 = s.row * row_step + phase_row[phase] - x.top, x0 = phase_column[phase] - x.left;
    const Inside in_rows(y0, row_step, image_rows, x.height), in_columns(x0, column_step, pitch, x.width);
    const int64_t count = in_columns.end - in_columns.begin, stride = x.column * column_step;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t n = 0; n < s.images; ++n) {
        const T* const image = x.data + (s.image + n) * x.image + c * x.channel;
        T* const plane_at = to + c * channel + static_cast<int64_t>(phase) * plane + n * image_rows * pitch;
        for (int64_t r = in_rows.begin; r < in_rows.end; ++r) {
          const T* const from = image + (y0 + r * row_step) * x.row + (x0 + in_columns.begin * column_step) * x.column;
          T* const row = plane_at + r * pitch + in_columns.begin;
          if (stride == 1) {
            copy_values(from, count, row);
          } else {
            for (int64_t i = 0; i < count; ++i) row[i] = from[i * stride];
          }
        }
      }
    }
  }
}

template <typename T>
void Planes::fill_outputs(const Images<T>& g, const Span& s, int64_t channels, T* to, int64_t to_row) const {
  std::fill(to, to + channels * to_row, T(0));
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t n = 0; n < s.images; ++n) {
      for (int64_t r = 0; r < s.rows; ++r) {
        const T* const from = g.data + (s.image + n) * g.image + c * g.channel + (s.row + r) * g.row;
        T* const row = to + c * to_row + (n * image_rows + r) * pitch;
        if (g.column == 1) {
          copy_values(from, columns, row);
        } else {
          for (int64_t i = 0; i < columns; ++i) row[i] = from[i * g.column];
        }
      }
    }
  }
}

template <typename T>
void Planes::take_outputs(const Images<T>& y, const Span& s, int64_t channels, const T* from, int64_t from_row,
                          T* to) const {
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t n = 0; n < s.images; ++n) {
      for (int64_t r = 0; r < s.rows; ++r) {
        const T* const row = from + c * from_row + (n * image_rows + r) * pitch;
        T* const at = to + (s.image + n) * y.image + c * y.channel + (s.row + r) * y.row;
        if (y.column == 1) {
          copy_values(row, columns, at);
        } else {
          for (int64_t i = 0; i < columns; ++i) at[i * y.column] = row[i];
        }
      }
    }
  }
}

template void Planes::take_outputs(const Images<float>&, const Span&, int64_t, const float*, int64_t, float*) const;
template void Planes::take_outputs(const Images<double>&, const Span&, int64_t, const double*, int64_t, double*) const;
template void Planes::fill(const Images<float>&, const Span&, int64_t, float*) const;
template void Planes::fill(const Images<double>&, const Span&, int64_t, double*) const;
template void Planes::fill_outputs(const Images<float>&, const Span&, int64_t, float*, int64_t) const;
template void Planes::fill_outputs(const Images<double>&, const Span&, int64_t, double*, int64_t) const;

}  // namespace ulpgrad
