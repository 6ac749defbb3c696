#include "cast.h"

#include <algorithm>

#include "elementwise_callable.h"

namespace ulpgrad {
namespace {

ElementType stored(char letter) {
  switch (letter) {
    case 'b':
      return {py::dtype::num_of<uint16_t>(), 2};
    case 'h':
      return {py::dtype("float16").num(), 2};
    case 's':
      return {py::dtype::num_of<float>(), 4};
    default:
      return {py::dtype::num_of<double>(), 8};
  }
}

char letter(const std::string& format) {
  if (format == "bfloat16") return 'b';
  if (format == "float16") return 'h';
  if (format == "float32") return 's';
  if (format == "float64") return 'd';
  throw py::value_error("cast: format '" + format + "': expected float16, bfloat16, float32 or float64");
}

CastLoop find(char from, char to, const CastTable& t) {
  const struct {
    char from, to;
    CastLoop loop;
  } all[] = {{'b', 's', t.b_s}, {'s', 'b', t.s_b}, {'h', 's', t.h_s}, {'s', 'h', t.s_h}, {'d', 'b', t.d_b},
             {'d', 'h', t.d_h}, {'b', 'd', t.b_d}, {'h', 'd', t.h_d}, {'s', 'd', t.s_d}, {'d', 's', t.d_s}};
  for (const auto& entry : all)
    if (entry.from == from && entry.to == to) return entry.loop;
  return nullptr;
}

py::object cast(const std::string& source, const std::string& target, const char* isa) {
  const char from = letter(source), to = letter(target);
  auto call = std::make_unique<ElementwiseCall>();
  call->name = "cast";
  call->operands = {stored(from)};
  call->result = stored(to);
  call->cast = find(from, to, table<CastTable>(isa_named(isa)));
  if (!call->cast) throw py::value_error("cast: no loop from " + source + " to " + target);
  call->computed_size = std::max(call->operands[0].size, call->result.size);
  call->params = 0;
  call->grain = 1 << 15;
  call->loop = nullptr;
  return make_callable(std::move(call));
}

void bind(py::module_& m) {
  m.def("cast", &cast, py::arg("source"), py::arg("target"), py::arg("isa") = "",
        "The function that converts arrays from one floating format to another.");
}

const Binder binder(bind);

}  // namespace
}  // namespace ulpgrad
