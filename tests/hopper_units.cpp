// What the device code tells the units of sm_90, and what the host's stand-ins for them do: functions that
// tests/test_ptx_host.py calls, to hold both against the machine that executes PTX.
#include "bulk_copy.cuh"
#include "warpgroup.cuh"

using namespace ulpgrad;

extern "C" {

unsigned long long operand(unsigned address, int steps, int across) {
  return across ? behind<true>(operand_descriptor<true>(address), steps)
                : behind<false>(operand_descriptor<false>(address), steps);
}

// Where the 16 values of each row of an operand lie in shared memory.
void places(unsigned long long descriptor, int across, int rows, long long* found) {
  host::shared_memory.resize(1 << 19);
  for (int row = 0; row < rows; ++row) {
    for (int step = 0; step < 16; ++step) {
      const void* const at =
          across ? host::element_of<true>(descriptor, row, step) : host::element_of<false>(descriptor, row, step);
      *found++ = static_cast<const unsigned char*>(at) - host::dynamic_shared();
    }
  }
}

void spot(int thread, int i, int* row_and_column) {
  const Spot at = spot_of_sum(thread, i);
  row_and_column[0] = at.row, row_and_column[1] = at.column;
}

// What lies in shared memory, from an address on, after one copy: of pixels where offsets are given, else of a box.
void copy(const void* fields, const int* at, const int* offset, unsigned to, int bytes, void* found) {
  host::shared_memory.resize(1 << 19);
  TensorMap map;
  std::memcpy(&map, fields, sizeof map);
  Mbarrier barrier = {};
  unsigned char* const place = host::dynamic_shared() + to;
  const host::Coordinates first = {at[0], at[1], at[2], at[3]};
  if (offset) {
    host::copy_pixels(place, map, &barrier, first, {offset[0], offset[1]});
  } else {
    host::copy_box(place, map, &barrier, first);
  }
  host::copies_under_way.back().deliver();
  host::copies_under_way.clear();
  std::memcpy(found, place, bytes);
}
}
