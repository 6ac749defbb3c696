// Binds matmul and linear: batches, strides and threads; the work is gemm's.
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "activation_named.h"
#include "batches.h"
#include "bind_entry.h"
#include "bind_floats.h"
#include "gemm.h"
#include "threads.h"

namespace ulpgrad {
namespace {

// Work below which the batches of one call are not worth sharing out (multiply-adds).
constexpr int64_t kBatchGrain = int64_t{1} << 18;

// Work that is handed to a thread at a time: small products go many together.
constexpr int64_t kBatchTask = int64_t{1} << 15;

// What beginning a product costs beside its multiply-adds.
constexpr int64_t kBatchCall = int64_t{1} << 11;

// The instruction set, and whether VDPBF16PS may be used.
struct Units {
  Isa isa;
  bool dots;
};

Units units_named(const char* isa, bool dots) {
  const Isa found = isa_named(isa);
  return {found, dots && found == Isa::avx512 && has_avx512_bf16()};
}

template <typename T>
const GemmFunction<T>& function(Units units) {
  const GemmTable& found = table<GemmTable>(units.isa);
  if constexpr (std::is_same_v<T, float>) return found.f32;
  if constexpr (std::is_same_v<T, double>) return found.f64;
  if constexpr (std::is_same_v<T, Float16>) return found.f16;
  if constexpr (std::is_same_v<T, Bfloat16>) return units.dots ? found.bf16_dots : found.bf16;
}

template <typename T>
void run(Units units, const Gemm<T>& g) {
  function<T>(units)(g);
}

// The values of an array that holds T, in any strides.
template <typename T>
const T* strided(const py::array& x, const char* name) {
  const py::dtype wanted(type_number<T>());
  if (!x.dtype().is(wanted) && !x.dtype().equal(wanted)) {
    throw py::type_error(std::string(name) + ": expected " + py::str(wanted).cast<std::string>() + " values, got " +
                         py::str(x.dtype()).cast<std::string>());
  }
  return static_cast<const T*>(x.data());
}

template <typename T>
py::array matmul_as(const py::array& given_a, const py::array& given_b, Units units) {
  const py::array a = usable(given_a), b = usable(given_b);
  const T *from_a = strided<T>(a, "a"), *from_b = strided<T>(b, "b");
  const int64_t da = a.ndim(), db = b.ndim();
  if (da < 2 || db < 2 || a.shape(da - 1) != b.shape(db - 2))
    throw py::value_error("matmul: inner sizes differ: " + shape_text(a) + " @ " + shape_text(b));
  const std::vector<py::ssize_t> batch = batch_shape(a, b);
  Gemm<T> g;
  g.m = a.shape(da - 2), g.n = b.shape(db - 1), g.k = a.shape(da - 1);
  g.a_row = stride<T>(a, da - 2), g.a_col = stride<T>(a, da - 1);
  g.b_row = stride<T>(b, db - 2), g.b_col = stride<T>(b, db - 1);
  g.c_row = g.n;
  py::array out = empty_of<T>(result_shape(batch, g.m, g.n));
  const std::vector<int64_t> at_a = batch_offsets(a, batch), at_b = batch_offsets(b, batch);
  T* c = static_cast<T*>(out.mutable_data());

  {
    py::gil_scoped_release released;
    const int64_t batches = static_cast<int64_t>(at_a.size()), work = kBatchCall + g.m * g.n * g.k;
    const int threads = threads_for(batches * work, kBatchGrain);
    const bool shared = batches >= 2 * threads;  // else each product is shared out by itself
    g.threaded = !shared;
    const int64_t together = std::max<int64_t>(1, kBatchTask / work);
    parallel_tasks((batches + together - 1) / together, shared ? threads : 1, [&](int64_t task) {
      Gemm<T> one = g;
      for (int64_t i = task * together; i < std::min(batches, (task + 1) * together); ++i) {
        one.a = from_a + at_a[i], one.b = from_b + at_b[i], one.c = c + i * g.m * g.n;
        run(units, one);
      }
    });
  }
  return out;
}

py::array matmul(const py::array& a, const py::array& b, const char* isa, bool dots) {
  const Units units = units_named(isa, dots);
  return by_type(a, "a", [&](auto type) { return matmul_as<decltype(type)>(a, b, units); });
}

// Work from which letting other Python threads run is worth its cost (multiply-adds).
constexpr int64_t kWithoutGil = int64_t{1} << 14;

// One product of matrices as they stand: what matmul_as comes down to for two of them, without its lists of batches.
template <typename T>
py::array product_of(const py::array& a, const py::array& b, const py::object& type, Units units) {
  Gemm<T> g;
  g.m = a.shape(0), g.n = b.shape(1), g.k = a.shape(1);
  g.a = static_cast<const T*>(a.data()), g.a_row = stride<T>(a, 0), g.a_col = stride<T>(a, 1);
  g.b = static_cast<const T*>(b.data()), g.b_row = stride<T>(b, 0), g.b_col = stride<T>(b, 1);
  const py::ssize_t shape[] = {g.m, g.n};
  auto out = py::reinterpret_steal<py::array>(new_array(py::object(type).release().ptr(), 2, shape).release());
  g.c = static_cast<T*>(out.mutable_data()), g.c_row = g.n;
  if (g.m * g.n * g.k < kWithoutGil) {
    run(units, g);
  } else {
    const py::gil_scoped_release released;
    run(units, g);
  }
  return out;
}

// Whether an array is a matrix of values of this type, as this machine reads them, a whole number of them apart.
bool is_matrix(const py::array& x, const py::object& type) {
  const auto* given = py::detail::array_proxy(x.ptr());
  const auto size = x.itemsize();
  return given->descr == type.ptr() && given->nd == 2 && (given->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_) &&
         given->strides[0] % size == 0 && given->strides[1] % size == 0;
}

// A callable of two arrays with its units chosen: where matrices are small, naming them costs as much as the product.
PyObject* enter(PyObject* self, PyObject* const* args, Py_ssize_t count);

PyMethodDef definition = {"matmul", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(enter)), METH_FASTCALL,
                          "The product of two arrays, as `matmul` of an instruction set."};

PyObject* enter(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  return answer_python([&] {
    const auto& units = held_by<Units>(self, definition);
    const auto& numpy = py::detail::npy_api::get();
    if (count != 2 || !numpy.PyArray_Check_(args[0]) || !numpy.PyArray_Check_(args[1]))
      throw py::type_error("matmul: expected two arrays");
    const auto a = py::reinterpret_borrow<py::array>(args[0]), b = py::reinterpret_borrow<py::array>(args[1]);
    return by_type(a, "a", [&](auto value) {
      using T = decltype(value);
      const auto type = py::reinterpret_steal<py::object>(numpy.PyArray_DescrFromType_(type_number<T>()));
      return is_matrix(a, type) && is_matrix(b, type) && a.shape(1) == b.shape(0) ? product_of<T>(a, b, type, units)
                                                                                  : matmul_as<T>(a, b, units);
    });
  });
}

py::object matmul_by(const char* isa, bool dots) {
  return function_holding(std::make_unique<Units>(units_named(isa, dots)), definition);
}

// A weight as products of one instruction set read it.
struct PackedWeight {
  Units units;
  int type;
  int64_t n, k;
  std::vector<char> memory;

  // Panels begin on a cache line.
  void* panels() {
    const auto at = reinterpret_cast<uintptr_t>(memory.data());
    return memory.data() + ((at + kLine - 1) / kLine * kLine - at);
  }
  static constexpr uintptr_t kLine = 64;
};

template <typename T>
void set_b(Gemm<T>& g, const py::array& weight) {
  expect_ndim(weight, 2, "weight");
  g.n = weight.shape(0), g.k = weight.shape(1);
  g.b = strided<T>(weight, "weight"), g.b_row = stride<T>(weight, 1), g.b_col = stride<T>(weight, 0);
}

std::unique_ptr<PackedWeight> pack_weight(const py::array& given, const char* isa, bool dots) {
  const py::array weight = usable(given);
  const Units units = units_named(isa, dots);
  return by_type(weight, "weight", [&](auto value) {
    using T = decltype(value);
    Gemm<T> g;
    set_b(g, weight);
    const auto bytes = static_cast<size_t>(function<T>(units).packed_bytes(g.n, g.k));
    auto made = std::make_unique<PackedWeight>(PackedWeight{units, type_number<T>(), g.n, g.k, {}});
    made->memory.resize(bytes + PackedWeight::kLine);
    const py::gil_scoped_release released;
    function<T>(units).pack(g, made->panels());
    return made;
  });
}

// What linear does beside the product.
struct Finish {
  std::optional<py::array> bias, scale, residual;
  double factor;
  Activation activation;
  Stored stored;
  PackedWeight* packed;
};

// The values of an optional operand of this shape, row by row; `kept` holds the copy that this may take.
template <typename T>
const T* rows_of(const std::optional<py::array>& given, std::initializer_list<int64_t> shape, const char* name,
                 py::array& kept) {
  if (!given) return nullptr;
  kept = py::array::ensure(*given, py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_);
  expect_shape(kept, shape, name);
  return strided<T>(kept, name);
}

template <typename T>
py::array linear_as(const py::array& given_x, const py::array& given_weight, const Finish& finish, Units units) {
  const py::array x = usable(given_x), weight = usable(given_weight);
  expect_ndim(x, 2, "x");
  Gemm<T> g;
  set_b(g, weight);
  g.m = x.shape(0);
  expect_shape(weight, {g.n, x.shape(1)}, "weight");
  if (PackedWeight* packed = finish.packed) {
    if (packed->units.isa != units.isa || packed->units.dots != units.dots || packed->type != type_number<T>() ||
        packed->n != g.n || packed->k != g.k)
      throw py::value_error("linear: packed: expected what pack_weight made of this weight for these units");
    g.packed = packed->panels();
  }
  py::array bias, scale, residual;
  g.after.bias = rows_of<T>(finish.bias, {g.n}, "bias", bias);
  g.after.scale = rows_of<T>(finish.scale, {g.n}, "scale", scale);
  g.after.residual = rows_of<T>(finish.residual, {g.m, g.n}, "residual", residual), g.after.residual_row = g.n;
  g.after.factor = static_cast<Wide<T>>(finish.factor);
  g.after.activation = finish.activation;
  g.a = strided<T>(x, "x"), g.a_row = stride<T>(x, 0), g.a_col = stride<T>(x, 1);
  g.stored = finish.stored;
  py::array out = g.stored == Stored::own        ? empty_of<T>({g.m, g.n})
                  : g.stored == Stored::float32  ? empty_of<float>({g.m, g.n})
                  : g.stored == Stored::bfloat16 ? empty_of<Bfloat16>({g.m, g.n})
                                                 : empty_of<Float16>({g.m, g.n});
  g.other = out.mutable_data(), g.c = static_cast<T*>(g.other), g.c_row = g.n;
  {
    py::gil_scoped_release released;
    run(units, g);
  }
  return out;
}

Stored stored_named(const std::string& name) {
  const char* const names[] = {"", "float32", "float16", "bfloat16"};
  for (int i = 0; i < 4; ++i)
    if (name == names[i]) return static_cast<Stored>(i);
  throw py::value_error("linear: stored='" + name + "': expected float32, float16 or bfloat16");
}

py::array linear(const py::array& x, const py::array& weight, const std::optional<py::array>& bias,
                 const std::string& activation, const char* isa, bool dots, const std::optional<py::array>& scale,
                 const std::optional<py::array>& residual, double factor, const std::string& stored,
                 PackedWeight* packed) {
  const Finish finish{bias,  scale, residual, factor, activation_named("linear", activation), stored_named(stored),
                      packed};
  const Units units = units_named(isa, dots);
  return by_type(x, "x", [&](auto type) {
    using T = decltype(type);
    if (std::is_same_v<T, double> && finish.stored != Stored::own)
      throw py::value_error("linear: stored='" + stored + "': sums of float64 are stored as such");
    return linear_as<T>(x, weight, finish, units);
  });
}

void bind_matmul(py::module_& m) {
  m.def("matmul", &matmul, py::arg("a"), py::arg("b"), py::arg("isa") = "", py::arg("dots") = true,
        "a[..., m, k] @ b[..., k, n] of float32, float64, float16 or uint16 (bfloat16) with any strides; batches "
        "broadcast. dots: whether bfloat16 may use VDPBF16PS.");
  m.def("matmul_by", &matmul_by, py::arg("isa"), py::arg("dots"),
        "matmul of an instruction set, as a function of a and b.");
  py::class_<PackedWeight>(m, "PackedWeight", "A weight in the order in which products of one instruction set read it.")
      .def_property_readonly("nbytes", [](const PackedWeight& packed) { return packed.memory.size(); });
  m.def("pack_weight", &pack_weight, py::arg("weight"), py::arg("isa"), py::arg("dots"),
        "weight[n, k] for `linear` of these units, as it is now.");
  m.def("linear", &linear, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("activation") = "",
        py::arg("isa") = "", py::arg("dots") = true, py::kw_only(), py::arg("scale") = py::none(),
        py::arg("residual") = py::none(), py::arg("factor") = 1.0, py::arg("stored") = "", py::arg("packed") = nullptr,
        "activation(x[m, k] @ weight[n, k].T * factor * scale[n] + bias[n]) + residual[m, n] in one sweep, of what "
        "matmul takes. stored: float32, float16 or bfloat16 instead of the operands' type, not for float64. packed: "
        "what pack_weight made of "
        "this weight.");
}

const Binder binder(bind_matmul);

}  // namespace
}  // namespace ulpgrad
