// Products of small matrices of f32, whose terms are added up in doubles, as in Nx.BinaryBackend: there a
// product of two f32 is exact. Compiled as vector.cpp is, with KERNELS as the name of the result.
#include "products.h"

#include "wide.h"

// A product that is exact and an addition are one instruction without another rounding.
#pragma GCC optimize("fp-contract=fast")

namespace emily {
namespace {


// COUNT rows of the output and VECTORS times WIDTH columns, or the first `columns` of them. The rows of `b` are
// `b.row` apart, those of the output `step`.
template <int64_t COUNT, int64_t VECTORS, bool WHOLE>
inline void tile(Matrix a, Matrix b, float* output, int64_t step, int64_t inner, int64_t columns) {
  Doubles totals[COUNT][VECTORS] = {};
  for (int64_t k = 0; k < inner; k++) {
    Doubles row[VECTORS];
    for (int64_t v = 0; v < VECTORS; v++) {
      const float* from = b.data + k * b.row + v * WIDTH;
      row[v] = WHOLE ? load(from) : load_first(from, columns - v * WIDTH);
    }
    for (int64_t i = 0; i < COUNT; i++) {
      double factor = a.data[i * a.row + k * a.column];
      for (int64_t v = 0; v < VECTORS; v++) totals[i][v] += factor * row[v];
    }
  }
  for (int64_t i = 0; i < COUNT; i++) {
    float part[VECTORS * WIDTH];
    float* out = output + i * step;
    for (int64_t v = 0; v < VECTORS; v++) store(totals[i][v], (WHOLE ? out : part) + v * WIDTH);
    for (int64_t j = 0; !WHOLE && j < columns; j++) out[j] = part[j];
  }
}

// COUNT rows of the output at a time, from `row` on; the columns of `b` follow each other. Answers the row that
// is next.
template <int64_t COUNT>
int64_t in_rows(Matrix a, Matrix b, float* output, Sizes sizes, int64_t row) {
  for (; row + COUNT <= sizes.rows; row += COUNT) {
    Matrix rows{a.data + row * a.row, a.row, a.column};
    float* out = output + row * sizes.columns;
    int64_t at = 0, left = sizes.columns;
    auto next = [&]<int64_t VECTORS, bool WHOLE>() {
      tile<COUNT, VECTORS, WHOLE>(rows, {b.data + at, b.row, 1}, out + at, sizes.columns, sizes.inner, left);
      at += VECTORS * WIDTH;
      left -= VECTORS * WIDTH;
    };
    while (left >= 2 * WIDTH) next.template operator()<2, true>();
    if (left >= WIDTH) next.template operator()<1, true>();
    if (left > 0) next.template operator()<1, false>();
  }
  return row;
}

void multiply(Matrix a, Matrix b, float* output, Sizes sizes) {
  int64_t row = in_rows<4>(a, b, output, sizes, 0);
  row = in_rows<2>(a, b, output, sizes, row);
  in_rows<1>(a, b, output, sizes, row);
}

// Elements along a line, `stride` apart. In a row they are loaded as such.
struct Line {
  const float* data;
  int64_t stride;
};

template <bool IN_ROWS>
inline Doubles load(Line line, int64_t at) {
  return IN_ROWS ? load(line.data + at) : load(line.data + at * line.stride, line.stride);
}

// COUNT vectors at a time hide how long an addition takes.
template <int64_t COUNT, bool IN_ROWS>
inline double dot_in_vectors(Line x, Line y, int64_t n) {
  Doubles lanes[COUNT] = {};
  int64_t at = 0;
  for (; at + COUNT * WIDTH <= n; at += COUNT * WIDTH)
    for (int64_t v = 0; v < COUNT; v++) lanes[v] += load<IN_ROWS>(x, at + v * WIDTH) * load<IN_ROWS>(y, at + v * WIDTH);
  for (int64_t half = COUNT / 2; half > 0; half /= 2)
    for (int64_t v = 0; v < half; v++) lanes[v] += lanes[v + half];
  double total = (lanes[0][0] + lanes[0][1]) + (lanes[0][2] + lanes[0][3]);
  for (; at < n; at++) total += static_cast<double>(x.data[at * x.stride]) * static_cast<double>(y.data[at * y.stride]);
  return total;
}

// Few products are added up in their order.
double dot(Line x, Line y, int64_t n) {
  bool in_rows = x.stride == 1 && y.stride == 1;
  if (in_rows && n >= 32 * WIDTH) return dot_in_vectors<8, true>(x, y, n);
  if (in_rows && n >= 4 * WIDTH) return dot_in_vectors<2, true>(x, y, n);
  if (n >= 4 * WIDTH) return dot_in_vectors<2, false>(x, y, n);
  double total = 0;
  for (int64_t at = 0; at < n; at++)
    total += static_cast<double>(x.data[at * x.stride]) * static_cast<double>(y.data[at * y.stride]);
  return total;
}

} // namespace

void KERNELS(Matrix a, Matrix b, float* output, Sizes sizes, float* scratch) {
  // Few dot products take less time than the copy of `b`.
  bool few = (sizes.rows < WIDTH || sizes.columns < WIDTH) && a.column == 1 && b.row == 1;
  if (few || (sizes.rows == 1 && sizes.columns == 1)) {
    for (int64_t i = 0; i < sizes.rows; i++)
      for (int64_t j = 0; j < sizes.columns; j++)
        *output++ = static_cast<float>(dot({a.data + i * a.row, a.column}, {b.data + j * b.column, b.row}, sizes.inner));
    return;
  }
  if (b.column == 1) return multiply(a, b, output, sizes);
  for (int64_t k = 0; k < sizes.inner; k++)
    for (int64_t j = 0; j < sizes.columns; j++) scratch[k * sizes.columns + j] = b.data[k * b.row + j * b.column];
  multiply(a, {scratch, sizes.columns, 1}, output, sizes);
}

} // namespace emily
