// What kernels.cpp, which knows MLX, and the files of loops, which know the processor, share.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emily {

// One element of the result for each of the inputs, `n` of them in a row. The output may be an input. What
// `option` means is the kernel's own affair.
using Map = void (*)(const void* const* inputs, void* output, size_t n, double option);

// A kernel over the last axis: `rows` times `columns` elements of the first input, and vectors of `columns`
// that may be null. The output may be the first input. What `option` means is the kernel's own affair.
using Rows = void (*)(const float* const* inputs, float* output, size_t rows, size_t columns, double option);

// One element of the result for each row of `columns` elements.
using Fold = void (*)(const void* input, void* output, size_t rows, size_t columns);

// An array's rows, how many of them, how many elements each has, and how far apart rows and elements are.
struct Table {
  size_t rows;
  size_t columns;
  int64_t row_step;
  int64_t column_step;
};

// Rows by `count` indices: taken, or written with `updates`, in which case the steps are those of row-major order
// and the output may be `x`.
using Indexed = void (*)(const void* x, const void* indices, const void* updates, void* output, size_t count, Table table);

template <class F>
struct Named {
  const char* name;
  F function;
};

using NamedMap = Named<Map>;
using NamedRows = Named<Rows>;
using NamedFold = Named<Fold>;
using NamedIndexed = Named<Indexed>;

// The kernels of a file, as compiled for one kind of processor; the lists end with a null name, or are null.
struct Kernels {
  const NamedMap* maps;
  const NamedRows* rows;
  const NamedFold* folds;
  const NamedIndexed* indexed;
};

extern const Kernels vector_v3, fold_v3, index_v3;
extern const Kernels vector_v4, fold_v4, index_v4;

} // namespace emily
