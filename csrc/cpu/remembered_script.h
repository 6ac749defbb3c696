// What a call asked of a device (kernels/replay.py), asked again: memory and launches, without the rung.
#pragma once

#include <utility>
#include <vector>

#include "remembered_python.h"

namespace ulpgrad {

struct Script {
  // What the driver's function that describes an array to the copy unit gets beside its address; sizes, strides in
  // bytes and the block are innermost first.
  struct Map {
    int array, type, swizzle;
    std::vector<uint64_t> sizes, strides;
    std::vector<uint32_t> block;
  };
  struct Launch {
    // An array and what makes the argument of it (None: it is the array's address), or -1 and a value.
    std::vector<std::pair<int, py::object>> arguments;
    py::object call;
    py::tuple grid, before;
    bool together;
    // Where the driver's own function is called: what it gets beside the stream, a word for each parameter, and of
    // which array each word is the address (-1: of none, -2 - i: the parameter is map i).
    int (*driver)(const void* config, void* function, void** parameters, void** extra) = nullptr;
    void* function;
    unsigned sizes[3], threads, shared;
    std::vector<uint64_t> words;
    std::vector<int> places;
    std::vector<Map> maps;
    int (*describe)(void* map, int type, uint32_t rank, void* address, const uint64_t* sizes, const uint64_t* strides,
                    const uint32_t* block, const uint32_t* steps, int interleave, int swizzle, int promotion, int fill);
  };
  std::vector<std::pair<py::object, py::object>> made;  // shape and type
  std::vector<Launch> launches;
  std::vector<int> results;
  std::vector<py::tuple> settings;  // a dictionary, a key in it and the value there, which has to be the same
  int device = -1;                  // none: not a call on a device

  // As `replay.in_steps` gives it, with the device's number.
  void take(const py::tuple& found);

  // The results and their addresses, for operands that lie at these; false where another device is the current one, or
  // something raised.
  bool run(PyObject* const* operands, const uint64_t* addresses, size_t count, py::object* outs,
           uint64_t* places) const;
};

// Whether an address is one that Triton takes for a multiple of 16.
inline bool is_aligned(uint64_t address) { return (address & 15) == 0; }

// Where an array of the device begins.
inline uint64_t address_of(PyObject* array) {
  const Known& k = known();
  return PyLong_AsUnsignedLongLongMask(k.ptr.of(k.data.of(array).ptr()).ptr());
}

}  // namespace ulpgrad
