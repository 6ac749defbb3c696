#include "matmul.cuh"

namespace ulpgrad {

constexpr int SIDE_THREADS = 16, THREADS = SIDE_THREADS * SIDE_THREADS, RUN = 4;

template <class T>
struct alignas(RUN * sizeof(T) > 16 ? 16 : RUN * sizeof(T)) Run {  // what a thread copies at once
  T values[RUN];
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
        k_(k - q_),
        line_step_(line_step),
        k_step_(k_step),
        from_(origin + line_ * line_step + q_ * k_step) {
    static_assert(LINES * DEPTH == THREADS * RUN, "a run for each thread");
    // A run is whole or empty, and aligned, where the other step and the size along it are multiples of its length.
    const Index step = along_k_ ? line_step : k_step, size = along_k_ ? k : lines;
    is_whole_ = (along_k_ ? k_step : line_step) == 1 && step % RUN == 0 && size % RUN == 0 &&
                reinterpret_cast<unsigned long long>(origin) % alignof(Run<T>) == 0;
  }

  // The next slice on its way from memory to registers; zeros beyond the edges.
  __device__ void load() {
    if (is_whole_) {
      const Run<T> zeros = {};
      run_ = lines_ > 0 && k_ > 0 ? *reinterpret_cast<const Run<T>*>(from_) : zeros;
    } else {
#pragma unroll
      for (int r = 0; r < RUN; ++r) {
        const bool is_inside = along_k_ ? lines_ > 0 && r < k_ : r < lines_ && k_ > 0;
        run_.values[r] = is_inside ? from_[r * (along_k_ ? k_step_ : line_step_)] : T{};
      }
    }
    from_ += DEPTH * k_step_;
    k_ -= DEPTH;
  }

  // What was loaded, into shared memory.
  __device__ void store(Wide<T> (*slice)[WIDTH]) const {
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
      if (along_k_) {
        slice[q_ + r][line_] = widen(run_.values[r]);
      } else {
        slice[q_][line_ + r] = widen(run_.values[r]);
      }
    }
  }

 private:
  const bool along_k_;
  const int line_, q_;
  const Index lines_;
  Index k_;
  const Index line_step_, k_step_;
  const T* from_;
  bool is_whole_;
  Run<T> run_;
};

// A thread holds SIDE x SIDE values of c in registers, as groups of four; 2 * SIDE loads from shared memory serve
// SIDE * SIDE multiply-adds. While one slice is multiplied, the next is on its way into registers, and then into the
// other half of shared memory.
template <class T, int SIDE>
__global__ void __launch_bounds__(THREADS) matmul_registers(T* c, const T* a, const T* b, Product p) {
  constexpr int LINES = SIDE_THREADS * SIDE, DEPTH = THREADS * RUN / LINES, GROUPS = SIDE / RUN;
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
#pragma unroll
    for (int i = 0; i < SIDE; ++i) {
      const Index at = top + i / RUN * SIDE_THREADS * RUN + row + i % RUN;
      if (at >= p.m) continue;
#pragma unroll
      for (int group = 0; group < GROUPS; ++group) {
        const Index first = left + group * SIDE_THREADS * RUN + column;
        T* to = c + (s * p.m + at) * p.n + first;
        if (p.n % RUN == 0) {
          Run<T> run;
#pragma unroll
          for (int r = 0; r < RUN; ++r) run.values[r] = narrow<T>(sums[i][group * RUN + r]);
          if (first < p.n) *reinterpret_cast<Run<T>*>(to) = run;
        } else {
#pragma unroll
          for (int r = 0; r < RUN; ++r) {
            if (first + r < p.n) to[r] = narrow<T>(sums[i][group * RUN + r]);
          }
        }
      }
    }
  }
}

}  // namespace ulpgrad
