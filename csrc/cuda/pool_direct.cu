// Pooling by its definition: a thread makes one result, and neighbouring threads results that are neighbours in memory.
#include "activation.cuh"
#include "element.cuh"
#include "pool_window.cuh"

namespace ulpgrad {

// The largest value of a window and its place in the image: the first of equal ones, NaN before all. After a
// convolution its activation, which is then applied to fewer values.
template <class T>
__global__ void max_pool(T* y, long long* places, const T* x, Pool p, Strides xs, Strides ys, Strides ps,
                         int activation) {
  for_each_element(p.images, p.channels, p.y.positions, p.x.positions, ys.channel == 1, [&](const Element& e) {
    const Span rows = span_of(p.y, e.y), columns = span_of(p.x, e.x);
    const T* const plane = x + offset_of(xs, e.image, e.channel, 0, 0);
    Wide<T> best = 0;
    long long place = -1;
    for (long long row = rows.first; row < rows.end; row += p.y.dilation) {
      for (long long column = columns.first; column < columns.end; column += p.x.dilation) {
        const Wide<T> value = widen(plane[row * xs.y + column * xs.x]);
        if (place < 0 || value > best || (value != value && best == best)) {
          best = value;
          place = row * p.x.size + column;
        }
      }
    }
    y[offset_of(ys, e.image, e.channel, e.y, e.x)] = narrow<T>(activated(best, activation));
    places[offset_of(ps, e.image, e.channel, e.y, e.x)] = place;
  });
}

// What a window's sum is divided by.
template <class T>
__device__ inline Wide<T> share_of_window(const Pool& p, int y, int x, int count_padding) {
  if (count_padding) return static_cast<Wide<T>>(p.y.kernel) * p.x.kernel;
  const Span rows = span_of(p.y, y), columns = span_of(p.x, x);
  return static_cast<Wide<T>>(rows.end - rows.first) * (columns.end - columns.first);
}

template <class T>
__global__ void avg_pool(T* y, const T* x, Pool p, Strides xs, Strides ys, int count_padding) {
  for_each_element(p.images, p.channels, p.y.positions, p.x.positions, ys.channel == 1, [&](const Element& e) {
    const Span rows = span_of(p.y, e.y), columns = span_of(p.x, e.x);
    const T* const plane = x + offset_of(xs, e.image, e.channel, 0, 0);
    Wide<T> sum = 0;
    for (long long row = rows.first; row < rows.end; ++row) {
      for (long long column = columns.first; column < columns.end; ++column) {
        sum += widen(plane[row * xs.y + column * xs.x]);
      }
    }
    y[offset_of(ys, e.image, e.channel, e.y, e.x)] = narrow<T>(sum / share_of_window<T>(p, e.y, e.x, count_padding));
  });
}

// A pixel gathers its share of every window that has seen it: no two threads write to one place.
template <class T>
__global__ void avg_pool_gradient(T* dx, const T* g, Pool p, Strides gs, Strides dxs, int count_padding) {
  for_each_element(p.images, p.channels, p.y.size, p.x.size, dxs.channel == 1, [&](const Element& e) {
    const Span rows = windows_over(p.y, e.y), columns = windows_over(p.x, e.x);
    const T* const plane = g + offset_of(gs, e.image, e.channel, 0, 0);
    Wide<T> sum = 0;
    for (long long row = rows.first; row < rows.end; ++row) {
      for (long long column = columns.first; column < columns.end; ++column) {
        sum += widen(plane[row * gs.y + column * gs.x]) /
               share_of_window<T>(p, static_cast<int>(row), static_cast<int>(column), count_padding);
      }
    }
    dx[offset_of(dxs, e.image, e.channel, e.y, e.x)] = narrow<T>(sum);
  });
}

}  // namespace ulpgrad
