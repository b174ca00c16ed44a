// Sums and products of f32, taken in doubles as Nx.BinaryBackend does: f32 alone loses digits with every
// addend, doubles lose none that the rounded result would show. Compiled as vector.cpp is, with KERNELS as the
// name of the result.
#include "reduce.h"
#include "wide.h"

namespace emily {
namespace {

// So many vectors at a time hide how long an addition takes.
constexpr int64_t VECTORS = 8;
constexpr int64_t LANES = VECTORS * WIDTH;
// Fewer elements in a row are taken in their order.
constexpr int64_t FEW = 4 * WIDTH;
// What memory gives faster one row after the other than several at a time: rows of less than a page that no
// cache near the processor holds.
constexpr int64_t PAGE = 1024;
constexpr int64_t CACHED = 128 * 1024;

struct Sum {
  static constexpr double identity = 0;
  template <class T>
  static T of(T a, T b) { return a + b; }
};

struct Product {
  static constexpr double identity = 1;
  template <class T>
  static T of(T a, T b) { return a * b; }
};

// The total of elements along a line: COUNT vectors at a time, and those left over one by one.
template <class F, int64_t COUNT, bool IN_ROW>
inline double in_vectors(const float* x, int64_t n, int64_t stride, double total) {
  Doubles lanes[COUNT];
  for (auto& lane : lanes) lane = _mm256_set1_pd(F::identity);
  int64_t at = 0;
  for (; at + COUNT * WIDTH <= n; at += COUNT * WIDTH) {
    for (int64_t v = 0; v < COUNT; v++) {
      const float* from = x + (at + v * WIDTH) * stride;
      lanes[v] = F::of(lanes[v], IN_ROW ? load(from) : load(from, stride));
    }
  }
  for (int64_t half = COUNT / 2; half > 0; half /= 2)
    for (int64_t v = 0; v < half; v++) lanes[v] = F::of(lanes[v], lanes[v + half]);
  double pairs = F::of(F::of(lanes[0][0], lanes[0][1]), F::of(lanes[0][2], lanes[0][3]));
  total = F::of(total, pairs);
  for (; at < n; at++) total = F::of(total, static_cast<double>(x[at * stride]));
  return total;
}

template <class F>
inline double row(const float* x, int64_t n, int64_t stride, double total) {
  if (stride == 1 && n >= 2 * LANES) return in_vectors<F, VECTORS, true>(x, n, 1, total);
  if (stride == 1 && n >= FEW) return in_vectors<F, 1, true>(x, n, 1, total);
  if (n >= 2 * LANES) return in_vectors<F, 2, false>(x, n, stride, total);
  for (int64_t i = 0; i < n; i++) total = F::of(total, static_cast<double>(x[i * stride]));
  return total;
}

// What takes elements into totals, which start at the identity or go on from what is there.
template <class F>
void rows(const float* input, double* totals, Axis kept, Axis reduced, bool first) {
  int64_t i = 0;
  bool in_order = reduced.stride != 1 || reduced.size < FEW;
  // As many rows as a vector has totals.
  for (; in_order && i + WIDTH <= kept.size; i += WIDTH) {
    const float* x = input + i * kept.stride;
    Doubles total = first ? _mm256_set1_pd(F::identity) : load(totals + i);
    for (int64_t at = 0; at < reduced.size; at++, x += reduced.stride)
      total = F::of(total, load(x, kept.stride));
    store(total, totals + i);
  }
  for (; i < kept.size; i++)
    totals[i] = row<F>(input + i * kept.stride, reduced.size, reduced.stride, first ? F::identity : totals[i]);
}

// COUNT rows are taken at a time, so that a total is read and written once for all of them.
template <class F, int64_t COUNT>
inline void add_rows(const float* x, int64_t step, double* totals, int64_t n, bool first) {
  int64_t at = 0;
  for (; at + WIDTH <= n; at += WIDTH) {
    Doubles total = first ? _mm256_set1_pd(F::identity) : load(totals + at);
    for (int64_t i = 0; i < COUNT; i++) total = F::of(total, load(x + i * step + at));
    store(total, totals + at);
  }
  for (; at < n; at++) {
    double total = first ? F::identity : totals[at];
    for (int64_t i = 0; i < COUNT; i++) total = F::of(total, static_cast<double>(x[i * step + at]));
    totals[at] = total;
  }
}

template <class F>
void columns(const float* input, double* totals, Axis kept, Axis reduced, bool first) {
  int64_t done = 0;
  auto add = [&]<int64_t COUNT>() {
    for (; done + COUNT <= reduced.size; done += COUNT)
      add_rows<F, COUNT>(input + done * reduced.stride, reduced.stride, totals, kept.size, first && done == 0);
  };
  bool in_turn = kept.size < PAGE && kept.size * reduced.size > CACHED;
  if (kept.stride == 1) {
    if (!in_turn) add.template operator()<8>();
    if (!in_turn) add.template operator()<2>();
    add.template operator()<1>();
    return;
  }
  for (; done < reduced.size; done++) {
    for (int64_t at = 0; at < kept.size; at++) {
      double total = first && done == 0 ? F::identity : totals[at];
      totals[at] = F::of(total, static_cast<double>(input[done * reduced.stride + at * kept.stride]));
    }
  }
}

// Rows of a few elements without gaps are as well fewer long rows, which have every total several times.
template <class F>
void few_columns(const float* input, double* totals, Axis kept, Axis reduced, bool first) {
  int64_t times = LANES / kept.size;
  int64_t width = times * kept.size;
  int64_t whole = reduced.size / times;
  double many[LANES];
  columns<F>(input, many, {width, 1}, {whole, width}, true);
  for (int64_t time = 0; time < times; time++) {
    for (int64_t at = 0; at < kept.size; at++) {
      double total = first && time == 0 ? F::identity : totals[at];
      totals[at] = F::of(total, many[time * kept.size + at]);
    }
  }
  columns<F>(input + whole * width, totals, kept, {reduced.size - whole * times, kept.size}, false);
}

int64_t distance(Axis axis) { return axis.stride < 0 ? -axis.stride : axis.stride; }

template <class F>
void take(const float* input, double* totals, Axis kept, Axis reduced, bool first) {
  bool dense = kept.stride == 1 && reduced.stride == kept.size;
  if (kept.size == 1 || distance(reduced) < distance(kept)) {
    rows<F>(input, totals, kept, reduced, first);
  } else if (dense && kept.size <= LANES / 2 && reduced.size >= 2 * LANES) {
    few_columns<F>(input, totals, kept, reduced, first);
  } else {
    columns<F>(input, totals, kept, reduced, first);
  }
}

void round(const double* totals, float* output, int64_t n) {
  int64_t at = 0;
  for (; at + WIDTH <= n; at += WIDTH) store(load(totals + at), output + at);
  for (; at < n; at++) output[at] = static_cast<float>(totals[at]);
}

} // namespace

extern const Reduction KERNELS[] = {
    {"sum", take<Sum>, round}, {"prod", take<Product>, round}, {nullptr, nullptr, nullptr}};

} // namespace emily
