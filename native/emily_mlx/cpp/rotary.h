// What rope.cpp, which knows MLX, and rotary.cpp, which knows the processor, share.
#pragma once

#include <cstdint>

namespace emily {

// Rows of `columns`, of which the first `dims` are turned: `positions` of them for each of `heads`, for each of
// `batches`.
struct Rotary {
  int64_t batches;
  int64_t heads;
  int64_t positions;
  int64_t columns;
  int64_t dims;
  // Whether each batch has a first position of its own.
  bool own_offsets;
  // Whether the two of a plane are neighbours, and not half of `dims` apart.
  bool traditional;
  double scale;
  double base;
};

// `periods` is null where the base says them.
using Rotate = void (*)(const Rotary& rotary, const float* x, const int32_t* offsets, const float* periods, float* output);

void rotary_v3(const Rotary& rotary, const float* x, const int32_t* offsets, const float* periods, float* output);
void rotary_v4(const Rotary& rotary, const float* x, const int32_t* offsets, const float* periods, float* output);

} // namespace emily
