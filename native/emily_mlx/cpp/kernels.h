// What kernels.cpp, which knows MLX, and vector.cpp, which knows the processor, share.
#pragma once

#include <cstddef>

namespace emily {

// One element of the result for each of the inputs, `n` of them in a row. The output may be an input.
using Map = void (*)(const void* const* inputs, void* output, size_t n);

// A kernel over the last axis: `rows` times `columns` elements of the first input, and vectors of `columns`
// that may be null. The output may be the first input. What `option` means is the kernel's own affair.
using Rows = void (*)(const float* const* inputs, float* output, size_t rows, size_t columns, double option);

struct NamedMap {
  const char* name;
  Map function;
};

struct NamedRows {
  const char* name;
  Rows function;
};

// The kernels as compiled for one kind of processor; both lists end with a null name.
struct Kernels {
  const NamedMap* maps;
  const NamedRows* rows;
};

extern const Kernels kernels_v3;
extern const Kernels kernels_v4;

} // namespace emily
