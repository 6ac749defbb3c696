#include "elementwise.h"

#include <cstring>

#include "bind_floats.h"
#include "elementwise_callable.h"

namespace ulpgrad {
namespace {

constexpr int64_t grain_of_cheap = 1 << 15, grain_of_costly = 1 << 13;

const ElementwiseKernel* find(const char* name, Isa isa) {
  const ElementwiseTable& all = table<ElementwiseTable>(isa);
  for (int i = 0; i < all.count; ++i)
    if (!std::strcmp(all.kernels[i].name, name)) return all.kernels + i;
  throw py::value_error(std::string("elementwise: there is no loop '") + name + "'");
}

// A floating format by name: how its values are stored and what loop takes them. Where none takes 16 bits, it is the
// float32 loop between conversions.
struct Stored {
  ElementType operand, result;
  int computed_size;
  ElementwiseLoop loop;
};

Stored stored(const std::string& format, const ElementwiseKernel& kernel, Isa isa) {
  const auto plain = [](int number, int size, ElementwiseLoop loop) {
    return Stored{{number, size}, {number, size}, size, loop};
  };
  const CastTable& cast = table<CastTable>(isa);
  if (format == "float32") return plain(py::dtype::num_of<float>(), 4, kernel.float32);
  if (format == "float64") return plain(py::dtype::num_of<double>(), 8, kernel.float64);
  if (format == "bfloat16") {
    const int number = type_number<Bfloat16>();
    if (kernel.bfloat16) return plain(number, 2, kernel.bfloat16);
    return {{number, 2, cast.b_s}, {number, 2, cast.s_b}, 4, kernel.float32};
  }
  if (format == "float16") {
    const int number = type_number<Float16>();
    if (kernel.float16) return plain(number, 2, kernel.float16);
    return {{number, 2, cast.h_s}, {number, 2, cast.s_h}, 4, kernel.float32};
  }
  throw py::value_error("elementwise: format '" + format + "': expected float16, bfloat16, float32 or float64");
}

py::object elementwise(const char* name, const std::string& format, const char* isa_name) {
  const Isa isa = isa_named(isa_name);
  const ElementwiseKernel* kernel = find(name, isa);
  const Stored type = stored(format, *kernel, isa);
  const ElementType boolean = {py::dtype::num_of<bool>(), 1};
  auto call = std::make_unique<ElementwiseCall>();
  call->name = name;
  for (const char* kind = kernel->operands; *kind; ++kind)
    call->operands.push_back(*kind == 'b' ? boolean : type.operand);
  call->result = kernel->gives_bool ? boolean : type.result;
  call->computed_size = type.computed_size;
  call->params = kernel->params;
  call->grain = kernel->flops < 8 ? grain_of_cheap : grain_of_costly;
  call->loop = type.loop;
  if (!call->loop) throw py::value_error(std::string("elementwise: '") + name + "' has no loop for " + format);
  return make_callable(std::move(call));
}

void bind(py::module_& m) {
  m.def("elementwise", &elementwise, py::arg("name"), py::arg("format"), py::arg("isa") = "",
        "The loop of that name as a function over arrays of a floating format.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
