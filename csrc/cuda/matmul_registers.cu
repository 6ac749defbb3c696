#include "matmul.cuh"

namespace ulpgrad {

constexpr int SIDE_THREADS = 16, THREADS = SIDE_THREADS * SIDE_THREADS, RUN = 4;

template <int BYTES>
struct Words {
  using type = uint4;
};
template <>
struct Words<4> {
  using type = unsigned;
};
template <>
struct Words<8> {
  using type = uint2;
};

// Four values that a thread holds, and their way from or to four neighbours in memory: one instruction, or two of 16
// bytes.
template <class T>
struct Run {
  static constexpr int BYTES = RUN * sizeof(T), ALIGNED = BYTES < 16 ? BYTES : 16;
  using Word = typename Words<BYTES>::type;
  __align__(16) T values[RUN];

  __device__ void load(const T* from) {
#pragma unroll
    for (int i = 0; i < BYTES / ALIGNED; ++i) word(values, i) = word(from, i);
  }

  __device__ void store(T* to) const {
#pragma unroll
    for (int i = 0; i < BYTES / ALIGNED; ++i) word(to, i) = word(values, i);
  }

  // Past the caches, to leave them to what is read again. Also, the compiler takes no vector apart that it is told so.
  __device__ void stream(T* to) const {
#pragma unroll
    for (int i = 0; i < BYTES / ALIGNED; ++i) __stcs(&word(to, i), word(values, i));
  }

 private:
  __device__ static Word& word(T* at, int i) { return reinterpret_cast<Word*>(at)[i]; }
  __device__ static const Word& word(const T* at, int i) { return reinterpret_cast<const Word*>(at)[i]; }
};

// How the slices of one operand come to shared memory: `LINES` rows of a, or columns of b, times `DEPTH` steps of k.
// Each of the 256 threads copies a run of four values, along whichever of the two lies together in memory.
template <class T, int LINES, int DEPTH>
class Slices {
 public:
  static constexpr int WIDTH = LINES + RUN;  // with a gap, so that runs along k meet different banks

  __device__ Slices(const T* origin, Index line_step, Index k_step, Index lines, Index k)
      : along_k_(k_step == 1 && (line_step != 1 || lines == 1)),
        line_(along_k_ ? threadIdx.x / (DEPTH / RUN) : threadIdx.x % (LINES / RUN) * RUN),
        q_(along_k_ ? threadIdx.x % (DEPTH / RUN) * RUN : threadIdx.x / (LINES / RUN)),
        lines_(lines - line_),
        left_(k - q_),
        line_step_(line_step),
        k_step_(k_step),
        from_(origin + line_ * line_step + q_ * k_step) {
    static_assert(LINES * DEPTH == THREADS * RUN, "a run for each thread");
    // A run is whole or empty, and aligned, where the other step and the size along it are multiples of its length.
    const Index other = along_k_ ? line_step : k_step, size = along_k_ ? k : lines;
    is_whole_ = (along_k_ ? k_step : line_step) == 1 && other % RUN == 0 && size % RUN == 0 &&
                reinterpret_cast<unsigned long long>(origin) % Run<T>::ALIGNED == 0;
  }

  // The next slice on its way from memory to registers; zeros beyond the edges.
  __device__ void load() {
    if (is_whole_) {
      run_ = {};
      if (lines_ > 0 && left_ > 0) run_.load(from_);
    } else {
#pragma unroll
      for (int r = 0; r < RUN; ++r) {
        const bool is_inside = along_k_ ? lines_ > 0 && r < left_ : r < lines_ && left_ > 0;
        run_.values[r] = is_inside ? from_[r * (along_k_ ? k_step_ : line_step_)] : T{};
      }
    }
    from_ += DEPTH * k_step_;
    left_ -= DEPTH;
  }

  // What was loaded, into shared memory.
  __device__ void store(Wide<T> (*slice)[WIDTH]) const {
    Run<Wide<T>> wide;
#pragma unroll
    for (int r = 0; r < RUN; ++r) wide.values[r] = widen(run_.values[r]);
    if (!along_k_) {
      wide.store(&slice[q_][line_]);
      return;
    }
#pragma unroll
    for (int r = 0; r < RUN; ++r) slice[q_ + r][line_] = wide.values[r];
  }

 private:
  const bool along_k_;
  const int line_, q_;
  const Index lines_;
  Index left_;
  const Index line_step_, k_step_;
  const T* from_;
  bool is_whole_;
  Run<T> run_;
};

// The values of c that a thread has, from its first one on, as far as `rows` and `columns` go; in whole runs, or one by
// one.
template <bool IS_WHOLE, class T, int SIDE>
__device__ void write(T* to, const Wide<T> (&sums)[SIDE][SIDE], Index rows, Index columns, Index row_step) {
#pragma unroll
  for (int i = 0; i < SIDE; ++i) {
    const int at = i / RUN * SIDE_THREADS * RUN + i % RUN;
    if (at >= rows) continue;
#pragma unroll
    for (int j = 0; j < SIDE; j += RUN) {
      const int first = j * SIDE_THREADS;
      Run<T> run;
#pragma unroll
      for (int r = 0; r < RUN; ++r) run.values[r] = narrow<T>(sums[i][j + r]);
      if (IS_WHOLE) {
        if (first < columns) run.stream(to + at * row_step + first);
      } else {
#pragma unroll
        for (int r = 0; r < RUN; ++r) {
          if (first + r < columns) to[at * row_step + first + r] = run.values[r];
        }
      }
    }
  }
}

// A thread holds SIDE x SIDE values of c in registers, as groups of four; 2 * SIDE loads from shared memory serve
// SIDE * SIDE multiply-adds. While one slice is multiplied, the next is on its way into registers, and then into the
// other half of shared memory.
template <class T, int SIDE>
__global__ void __launch_bounds__(THREADS, 2) matmul_registers(T* c, const T* a, const T* b, Product p) {
  constexpr int LINES = SIDE_THREADS * SIDE, DEPTH = THREADS * RUN / LINES;
  using Operand = Slices<T, LINES, DEPTH>;
  __shared__ __align__(16) Wide<T> a_slices[2][DEPTH][Operand::WIDTH], b_slices[2][DEPTH][Operand::WIDTH];
  const Index across = cdiv(p.n, Index{LINES});
  const Index top = blockIdx.x / across * LINES, left = blockIdx.x % across * LINES;
  const int row = threadIdx.x / SIDE_THREADS * RUN, column = threadIdx.x % SIDE_THREADS * RUN;
  for (Index s = blockIdx.y; s < p.stacks; s += gridDim.y) {
    Operand a_next(a + s * p.a_stack + top * p.a_row, p.a_row, p.a_column, p.m - top, p.k);
    Operand b_next(b + s * p.b_stack + left * p.b_column, p.b_column, p.b_row, p.n - left, p.k);
    Wide<T> sums[SIDE][SIDE] = {};
    int half = 0;
    if (p.k > 0) {
      a_next.load();
      b_next.load();
      a_next.store(a_slices[0]);
      b_next.store(b_slices[0]);
    }
    __syncthreads();
    for (Index step = 0; step < p.k; step += DEPTH) {
      const bool is_last = step + DEPTH >= p.k;
      if (!is_last) {
        a_next.load();
        b_next.load();
      }
#pragma unroll
      for (int q = 0; q < DEPTH; ++q) {
        Wide<T> x[SIDE], y[SIDE];
#pragma unroll
        for (int r = 0; r < SIDE; ++r) {
          x[r] = a_slices[half][q][r / RUN * SIDE_THREADS * RUN + row + r % RUN];
          y[r] = b_slices[half][q][r / RUN * SIDE_THREADS * RUN + column + r % RUN];
        }
#pragma unroll
        for (int i = 0; i < SIDE; ++i) {
#pragma unroll
          for (int j = 0; j < SIDE; ++j) sums[i][j] += x[i] * y[j];
        }
      }
      if (!is_last) {
        half ^= 1;  // nobody reads that half any more: all have passed the barrier since
        a_next.store(a_slices[half]);
        b_next.store(b_slices[half]);
      }
      __syncthreads();
    }
    T* to = c + (s * p.m + top + row) * p.n + left + column;
    if (p.n % RUN == 0) {
      write<true, T>(to, sums, p.m - top - row, p.n - left - column, p.n);
    } else {
      write<false, T>(to, sums, p.m - top - row, p.n - left - column, p.n);
    }
  }
}

}  // namespace ulpgrad
