// What reduce.cpp, which knows MLX, and totals.cpp, which knows the processor, share.
#pragma once

#include <cstdint>

namespace emily {

// An axis, with the distance of its elements in memory.
struct Axis {
  int64_t size;
  int64_t stride;
};

struct Reduction {
  const char* name;
  // Takes the elements along `reduced` into one total for each place along `kept`: new totals at first, and
  // then those that are there.
  void (*take)(const float* input, double* totals, Axis kept, Axis reduced, bool first);
  void (*round)(const double* totals, float* output, int64_t n);
};

// The reductions as compiled for one kind of processor; the lists end with a null name.
extern const Reduction totals_v3[];
extern const Reduction totals_v4[];

} // namespace emily
