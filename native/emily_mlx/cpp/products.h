// What matmul.cpp, which knows MLX, and products.cpp, which knows the processor, share.
#pragma once

#include <cstdint>

namespace emily {

// A matrix in memory, with the distances from row to row and from column to column.
struct Matrix {
  const float* data;
  int64_t row;
  int64_t column;
};

struct Sizes {
  int64_t rows;
  int64_t inner;
  int64_t columns;
};

// The row-major product of `rows` by `inner` and `inner` by `columns`. `scratch` has room for `b`.
using Product = void (*)(Matrix a, Matrix b, float* output, Sizes sizes, float* scratch);

void products_v3(Matrix a, Matrix b, float* output, Sizes sizes, float* scratch);
void products_v4(Matrix a, Matrix b, float* output, Sizes sizes, float* scratch);

} // namespace emily
