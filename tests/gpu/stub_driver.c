// A CUDA driver that runs nothing and prints each launch: what Triton's launcher hands over is read from its output.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTHING(name) \
  int name() { return 0; }
NOTHING(cuCtxGetDevice) NOTHING(cuCtxGetLimit) NOTHING(cuCtxSetCurrent) NOTHING(cuCtxSetLimit) NOTHING(cuDeviceGet)
NOTHING(cuDeviceGetAttribute) NOTHING(cuDevicePrimaryCtxRetain) NOTHING(cuDriverGetVersion) NOTHING(cuFuncGetAttribute)
NOTHING(cuFuncSetAttribute) NOTHING(cuFuncSetCacheConfig) NOTHING(cuInit) NOTHING(cuModuleGetFunction)
NOTHING(cuModuleLoadData) NOTHING(cuModuleUnload) NOTHING(cuOccupancyMaxActiveClusters) NOTHING(cuStreamIsCapturing)
NOTHING(cuTensorMapEncodeIm2col)

int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int cuPointerGetAttribute(void *data, int attribute, uint64_t pointer) { *(uint64_t *)data = pointer; return 0; }
int cuGetErrorString(int code, const char **text) { *text = "stub"; return 0; }

int cuTensorMapEncodeTiled(void *map, int type, uint32_t rank, void *address, const uint64_t *shape, const uint64_t *strides,
                           const uint32_t *box) {
  memset(map, 0, 128);
  printf("descriptor address %llx shape", (unsigned long long)(uintptr_t)address);
  for (uint32_t i = 0; i < rank; ++i) printf(" %llu", (unsigned long long)shape[i]);
  printf(" strides");
  for (uint32_t i = 0; i + 1 < rank; ++i) printf(" %llu", (unsigned long long)strides[i]);
  printf(" box");
  for (uint32_t i = 0; i < rank; ++i) printf(" %u", box[i]);
  printf("\n");
  fflush(stdout);
  return 0;
}

typedef struct {
  unsigned gx, gy, gz, bx, by, bz, shared;
  void *stream, *attributes;
  unsigned count;
} Config;

// STUB_PARAMETERS: bytes of each parameter, as in "8,8,4".
int cuLaunchKernelEx(Config *c, void *function, void **parameters, void **extra) {
  if (getenv("STUB_QUIET")) return 0;
  printf("launch grid %u %u %u block %u shared %u stream %llx parameters", c->gx, c->gy, c->gz, c->bx, c->shared,
         (unsigned long long)(uintptr_t)c->stream);
  const char *sizes = getenv("STUB_PARAMETERS");
  for (int i = 0; sizes && *sizes; ++i, sizes += strcspn(sizes, ","), sizes += *sizes == ',') {
    uint64_t value = 0;
    memcpy(&value, parameters[i], (size_t)atoi(sizes));
    printf(" %llx", (unsigned long long)value);
  }
  printf("\n");
  fflush(stdout);
  return 0;
}
