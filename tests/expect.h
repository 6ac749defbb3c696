// A condition that ends a test program, with its name and values.
#pragma once

#include <cstdio>
#include <cstdlib>

#define EXPECT(condition, ...)                                \
  do {                                                        \
    if (!(condition)) {                                       \
      std::fprintf(stderr, "%s: %s: ", __func__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                      \
      std::fprintf(stderr, "\n");                             \
      std::exit(1);                                           \
    }                                                         \
  } while (0)
