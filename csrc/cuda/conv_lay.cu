// Images of any layout with their channels side by side, as matrix units read them, and filled up with zeros to whole
// copies. A tile goes through shared memory, so that neighbouring threads read neighbouring pixels and write
// neighbouring channels.
#include "conv_index.cuh"
#include "packet.cuh"

namespace ulpgrad {

// Pixels of all images are numbered through. `to` has `filled` channels, an even number; images have `channels`.
template <class T, int CHANNELS>
__global__ void __launch_bounds__(256)
    lay_channels_last(T* to, const T* from, int count, int height, int width, int channels, int filled, Strides s) {
  constexpr int THREADS = 256, PIXELS = 2048 / CHANNELS, PAIRS = CHANNELS / 2;
  __shared__ T tile[CHANNELS][PIXELS + 1];
  __shared__ Rows numbers;
  if (threadIdx.x == 0) {
    numbers = {divisor_of(static_cast<unsigned>(height * width)), divisor_of(static_cast<unsigned>(width))};
  }
  __syncthreads();
  const int thread = threadIdx.x;
  const unsigned across = cdiv(filled, CHANNELS), first = blockIdx.x / across * PIXELS;
  const int first_channel = blockIdx.x % across * CHANNELS;

  const unsigned pixel = first + thread % PIXELS;
  const bool is_there = pixel < static_cast<unsigned>(count);
  const Place place = place_of(is_there ? pixel : 0, numbers);
  const T* const here = from + offset_of(s, place.image, 0, place.y, place.x);
#pragma unroll
  for (int i = thread / PIXELS; i < CHANNELS; i += THREADS / PIXELS) {
    const int channel = first_channel + i;
    tile[i][thread % PIXELS] = is_there && channel < channels ? here[channel * s.channel] : T{};
  }
  __syncthreads();
#pragma unroll
  for (int i = thread; i < PIXELS * PAIRS; i += THREADS) {
    const int row = i / PAIRS, column = i % PAIRS * 2;
    if (first + row >= static_cast<unsigned>(count) || first_channel + column >= filled) continue;
    const Packet<T, 2> pair = {{tile[column][row], tile[column + 1][row]}};
    store_packet(to + static_cast<long long>(first + row) * filled + first_channel + column, pair);
  }
}

}  // namespace ulpgrad
