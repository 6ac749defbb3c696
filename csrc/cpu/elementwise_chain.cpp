// A chain of elementwise loops in one pass over memory: pieces that fit the first cache go through all steps before the
// next ones are read.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>

#include "bind.h"
#include "cast.h"
#include "elementwise.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad {
namespace {

constexpr int64_t kPiece = 512;                    // values: a dozen buffers of them fit the first cache
constexpr int64_t without_gil = int64_t{1} << 14;  // values from which releasing the GIL is worth its cost
constexpr int most_sources = 3, most_params = 4;

// How operands and results lie in memory, and their way to and from the type that loops compute in.
struct Stored {
  py::dtype type;
  int64_t size, computed;  // bytes
  CastLoop widen = nullptr, narrow = nullptr;
};

Stored stored(const std::string& format, Isa isa) {
  const CastTable& cast = table<CastTable>(isa);
  if (format == "float32") return {py::dtype::of<float>(), 4, 4};
  if (format == "float64") return {py::dtype::of<double>(), 8, 8};
  if (format == "bfloat16") return {py::dtype::of<uint16_t>(), 2, 4, cast.b_s, cast.s_b};
  if (format == "float16") return {py::dtype("float16"), 2, 4, cast.h_s, cast.s_h};
  throw py::value_error("chain: format '" + format + "': expected float16, bfloat16, float32 or float64");
}

const ElementwiseKernel& kernel_named(const std::string& name, Isa isa) {
  const ElementwiseTable& all = table<ElementwiseTable>(isa);
  for (int i = 0; i < all.count; ++i)
    if (name == all.kernels[i].name) return all.kernels[i];
  throw py::value_error("chain: there is no loop '" + name + "'");
}

// One loop: values it reads, and the buffer it writes, or the result if it is one and needs no conversion.
struct Step {
  ElementwiseLoop loop;
  std::vector<int> sources;
  double params[most_params];
  int value, buffer;
};

using GivenStep = std::tuple<std::string, std::vector<int>, std::vector<double>>;

class Chain {
 public:
  // Values are numbered: operands, constants, then one for each step.
  Chain(int operands, std::vector<double> constants, const std::vector<GivenStep>& steps, std::vector<int> results,
        const std::string& format, const char* isa)
      : operands_(operands),
        constants_(std::move(constants)),
        results_(std::move(results)),
        stored_(stored(format, isa_named(isa))) {
    const int first = operands_ + static_cast<int>(constants_.size());
    values_ = first + static_cast<int>(steps.size());
    if (operands_ < 1 || results_.empty()) throw py::value_error("chain: expected operands and results");
    for (const int r : results_)
      if (r < first || r >= values_ || std::count(results_.begin(), results_.end(), r) != 1)
        throw py::value_error("chain: each result is the value of a step, given once");
    std::vector<char> is_bool(values_, 0);
    std::vector<int> last_read(values_, -1);
    for (const auto& [name, sources, params] : steps) {
      const ElementwiseKernel& kernel = kernel_named(name, isa_named(isa));
      Step step{stored_.computed == 8 ? kernel.float64 : kernel.float32,
                sources,
                {},
                first + static_cast<int>(steps_.size()),
                -1};
      if (!step.loop) throw py::value_error("chain: '" + name + "' has no loop for " + format);
      if (sources.size() != std::strlen(kernel.operands) || static_cast<int>(params.size()) != kernel.params ||
          sources.size() > most_sources || params.size() > most_params)
        throw py::value_error("chain: wrong number of operands or parameters of '" + name + "'");
      for (size_t k = 0; k < sources.size(); ++k) {
        if (sources[k] < 0 || sources[k] >= step.value)
          throw py::value_error("chain: a value is read before it is made");
        if (is_bool[sources[k]] != (kernel.operands[k] == 'b'))
          throw py::value_error("chain: '" + name + "' takes another kind of value");
        last_read[sources[k]] = step.value;
      }
      is_bool[step.value] = kernel.gives_bool;
      std::copy(params.begin(), params.end(), step.params);
      flops_ += kernel.flops;
      steps_.push_back(std::move(step));
    }
    for (const int r : results_)
      if (is_bool[r]) throw py::value_error("chain: results are floats, not bool");
    assign_buffers(first, last_read);
  }

  // Operands are contiguous; one with fewer values than the result repeats.
  py::tuple operator()(const py::args& arrays, const std::vector<py::ssize_t>& shape) const {
    if (static_cast<int>(arrays.size()) != operands_)
      throw py::type_error("chain: expected " + std::to_string(operands_) + " arrays");
    int64_t n = 1;
    for (const py::ssize_t size : shape) n *= size;
    std::vector<const char*> from;
    std::vector<int64_t> period;
    for (const py::handle item : arrays) {
      if (!py::isinstance<py::array>(item)) throw py::type_error("chain: expected arrays");
      const auto a = py::reinterpret_borrow<py::array>(item);
      if (!a.dtype().equal(stored_.type)) throw py::type_error("chain: an operand is of another type");
      if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) throw py::value_error("operand: not aligned");
      expect_contiguous(a, "operand");
      if (n > 0 && (a.size() < 1 || n % a.size() != 0))
        throw py::value_error("chain: an operand of shape " + shape_text(a) + " does not fit the result");
      from.push_back(static_cast<const char*>(a.data()));
      period.push_back(a.size());
    }
    py::tuple outs(results_.size());
    std::vector<char*> to;
    for (size_t r = 0; r < results_.size(); ++r) {
      py::object out = new_array(py::dtype(stored_.type).release().ptr(), static_cast<int>(shape.size()), shape.data());
      to.push_back(static_cast<char*>(py::reinterpret_borrow<py::array>(out).mutable_data()));
      outs[r] = std::move(out);
    }
    const auto body = [&](int64_t begin, int64_t end) { compute(from, period, to, begin, end); };
    const int64_t grain = flops_ < 8 ? 1 << 15 : flops_ < 64 ? 1 << 13 : 1 << 11;
    if (n < without_gil) {
      if (n > 0) body(0, n);
    } else {
      const py::gil_scoped_release released;
      parallel_for(n, grain, body);
    }
    return outs;
  }

 private:
  // A step may write where a value lay that was last read before it. Operands and constants keep their buffers.
  void assign_buffers(int first, const std::vector<int>& last_read) {
    buffers_ = first;
    std::vector<int> buffer_of(values_, -1), unused;
    for (Step& step : steps_) {
      const bool is_result = std::count(results_.begin(), results_.end(), step.value) != 0;
      if (!is_result || stored_.narrow) {
        if (unused.empty()) unused.push_back(buffers_++);
        step.buffer = buffer_of[step.value] = unused.back();
        unused.pop_back();
      }
      for (const int source : step.sources) {
        if (source < first || last_read[source] != step.value || buffer_of[source] < 0) continue;
        unused.push_back(buffer_of[source]);
        buffer_of[source] = -1;
      }
      if (step.buffer >= 0 && last_read[step.value] < 0) {
        unused.push_back(step.buffer);
        buffer_of[step.value] = -1;
      }
    }
  }

  void fill(char* buffer, double value) const {
    for (int64_t i = 0; i < kPiece; ++i) {
      if (stored_.computed == 8)
        reinterpret_cast<double*>(buffer)[i] = value;
      else
        reinterpret_cast<float*>(buffer)[i] = static_cast<float>(value);
    }
  }

  // Values [at, at + n) of an operand: where they lie, or in the buffer if they repeat or are of another type.
  const void* read(const char* from, int64_t period, int64_t at, int64_t n, char* buffer, char* raw) const {
    const int64_t size = stored_.size, start = at % period;
    const char* values = from + start * size;
    if (start + n > period) {
      char* const gathered = stored_.widen ? raw : buffer;
      for (int64_t done = 0, place = start; done < n; place = 0) {
        const int64_t run = std::min(n - done, period - place);
        std::memcpy(gathered + done * size, from + place * size, static_cast<size_t>(run * size));
        done += run;
      }
      values = gathered;
    }
    if (!stored_.widen) return values;
    stored_.widen(values, buffer, n);
    return buffer;
  }

  void compute(const std::vector<const char*>& from, const std::vector<int64_t>& period, const std::vector<char*>& to,
               int64_t begin, int64_t end) const {
    constexpr int64_t bytes = kPiece * sizeof(double);
    const size_t wanted = static_cast<size_t>((buffers_ + 1) * bytes) + values_ * sizeof(void*);
    char* const memory = static_cast<char*>(scratch(Slot::caller, wanted));
    char* const raw = memory + buffers_ * bytes;
    auto** const at = reinterpret_cast<const void**>(raw + bytes);
    const int constants = static_cast<int>(constants_.size());
    for (int k = 0; k < constants; ++k) {
      fill(memory + (operands_ + k) * bytes, constants_[k]);
      at[operands_ + k] = memory + (operands_ + k) * bytes;
    }
    for (int64_t i = begin; i < end; i += kPiece) {
      const int64_t n = std::min(kPiece, end - i);
      for (int k = 0; k < operands_; ++k)
        if (period[k] > 1 || i == begin)
          at[k] = read(from[k], period[k], i, period[k] > 1 ? n : std::min(kPiece, end - i), memory + k * bytes, raw);
      for (const Step& step : steps_) {
        const void* in[most_sources];
        for (size_t k = 0; k < step.sources.size(); ++k) in[k] = at[step.sources[k]];
        const auto found = std::find(results_.begin(), results_.end(), step.value);
        char* const result = found == results_.end() ? nullptr : to[found - results_.begin()] + i * stored_.size;
        char* const out = step.buffer < 0 ? result : memory + step.buffer * bytes;
        step.loop(in, out, n, step.params);
        if (result && stored_.narrow) stored_.narrow(out, result, n);
        at[step.value] = out;
      }
    }
  }

  int operands_, values_ = 0, buffers_ = 0, flops_ = 0;
  std::vector<double> constants_;
  std::vector<int> results_;
  Stored stored_;
  std::vector<Step> steps_;
};

void bind(py::module_& m) {
  py::class_<Chain>(m, "ElementwiseChain", "Elementwise loops on values: operands, constants, then one for each step.")
      .def(py::init<int, std::vector<double>, const std::vector<GivenStep>&, std::vector<int>, const std::string&,
                    const char*>(),
           py::arg("operands"), py::arg("constants"), py::arg("steps"), py::arg("results"), py::arg("format"),
           py::arg("isa") = "")
      .def("__call__", &Chain::operator(), py::kw_only(), py::arg("shape"));
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
