// The loops of the kernels. Compiled once for each kind of processor, with KERNELS as the name of the result:
// the compiler makes vector instructions of them, and of the functions of <cmath> calls of the C library's
// vector functions.
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

// What the C library has in vectors; its header says so under -ffast-math only, which would lose NaN.
#define VECTOR __attribute__((simd("notinbranch")))
extern "C" {
VECTOR float expf(float) noexcept;
VECTOR float expm1f(float) noexcept;
VECTOR float logf(float) noexcept;
VECTOR float log1pf(float) noexcept;
VECTOR float log2f(float) noexcept;
VECTOR float log10f(float) noexcept;
VECTOR float sinf(float) noexcept;
VECTOR float cosf(float) noexcept;
VECTOR float tanf(float) noexcept;
VECTOR float asinf(float) noexcept;
VECTOR float acosf(float) noexcept;
VECTOR float atanf(float) noexcept;
VECTOR float sinhf(float) noexcept;
VECTOR float coshf(float) noexcept;
VECTOR float tanhf(float) noexcept;
VECTOR float asinhf(float) noexcept;
VECTOR float acoshf(float) noexcept;
VECTOR float atanhf(float) noexcept;
VECTOR float erff(float) noexcept;
VECTOR float powf(float, float) noexcept;
VECTOR float atan2f(float, float) noexcept;
VECTOR double erf(double) noexcept;
VECTOR double exp(double) noexcept;
VECTOR double log(double) noexcept;
}

namespace emily {
namespace {

// Elements are computed in whole vectors of this many, the rest padded to one: so an element's value does
// not depend on where it stands.
constexpr size_t LANES = 16;

template <class T, size_t N, class F>
inline void map(const void* const* inputs, void* output, size_t n, F f) {
  const T* in[N];
  for (size_t i = 0; i < N; i++) in[i] = static_cast<const T*>(inputs[i]);
  T* out = static_cast<T*>(output);
  size_t whole = n - n % LANES;

  auto loop = [&f](const T* const* in, T* out, size_t n) {
    const T* a = in[0];
    const T* b = in[N - 1];
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) {
      if constexpr (N == 1) out[i] = f(a[i]);
      else out[i] = f(a[i], b[i]);
    }
  };

  loop(in, out, whole);
  if (size_t rest = n - whole) {
    T padded[N][LANES], results[LANES];
    const T* last[N];
    for (size_t i = 0; i < N; i++) {
      std::fill_n(padded[i], LANES, in[i][whole]);
      std::copy_n(in[i] + whole, rest, padded[i]);
      last[i] = padded[i];
    }
    loop(last, results, LANES);
    std::copy_n(results, rest, out + whole);
  }
}

#define UNARY(NAME, EXPRESSION)                                                         \
  void NAME(const void* const* inputs, void* output, size_t n) {                        \
    map<float, 1>(inputs, output, n, [](float x) -> float { return EXPRESSION; });      \
  }
#define BINARY(NAME, EXPRESSION)                                                        \
  void NAME(const void* const* inputs, void* output, size_t n) {                        \
    map<float, 2>(inputs, output, n, [](float x, float y) -> float { return EXPRESSION; }); \
  }

UNARY(map_exp, expf(x))
UNARY(map_expm1, expm1f(x))
UNARY(map_log, logf(x))
UNARY(map_log1p, log1pf(x))
UNARY(map_log2, log2f(x))
UNARY(map_log10, log10f(x))
UNARY(map_sqrt, sqrtf(x))
UNARY(map_rsqrt, 1.0f / sqrtf(x))
UNARY(map_sin, sinf(x))
UNARY(map_cos, cosf(x))
UNARY(map_tan, tanf(x))
UNARY(map_arcsin, asinf(x))
UNARY(map_arccos, acosf(x))
UNARY(map_arctan, atanf(x))
UNARY(map_sinh, sinhf(x))
UNARY(map_cosh, coshf(x))
UNARY(map_tanh, tanhf(x))
UNARY(map_arcsinh, asinhf(x))
UNARY(map_arccosh, acoshf(x))
UNARY(map_arctanh, atanhf(x))
UNARY(map_erf, erff(x))
// The exponential of what is below zero neither overflows nor loses digits.
inline float sigmoid(float x) {
  float e = expf(x < 0 ? x : -x);
  float upper = 1.0f / (1.0f + e);
  return x < 0 ? e * upper : upper;
}
UNARY(map_sigmoid, sigmoid(x))
UNARY(map_floor, __builtin_floorf(x))
UNARY(map_ceil, __builtin_ceilf(x))
BINARY(map_power, powf(x, y))
BINARY(map_arctan2, atan2f(x, y))

// Winitzki's estimate, two steps of Newton's method in doubles, and one rounding.
inline float erfinv(float y) {
  double v = y;
  double w = log((1 - v) * (1 + v));
  double t = 4.330746750799873 + 0.5 * w;
  double estimate = sqrt(sqrt(t * t - w / 0.147) - t);
  double x = v < 0 ? -estimate : estimate;
  for (int step = 0; step < 2; step++) {
    x -= (erf(x) - v) * 0.886226925452758 * exp(x * x);
  }
  // Near zero erf is a straight line, of which the estimate loses the digits.
  double line = v * 0.886226925452758;
  double near = line + line * line * line / 3;
  double size = v < 0 ? -v : v;
  double result = size < 1e-3 ? near : x;
  double infinite = v < 0 ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  return static_cast<float>(size == 1 ? infinite : result);
}
UNARY(map_erfinv, erfinv(x))

template <class T>
void map_where(const void* const* inputs, void* output, size_t n) {
  const uint8_t* chosen = static_cast<const uint8_t*>(inputs[0]);
  const T* x = static_cast<const T*>(inputs[1]);
  const T* y = static_cast<const T*>(inputs[2]);
  T* out = static_cast<T*>(output);
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++) out[i] = chosen[i] ? x[i] : y[i];
}

// Sums and extremes of a row, in lanes of their own that are added up at the end.
template <class F>
inline float sum(const float* x, size_t n, F f) {
  float lanes[LANES] = {};
  size_t whole = n - n % LANES;
  for (size_t i = 0; i < whole; i += LANES)
    for (size_t lane = 0; lane < LANES; lane++) lanes[lane] += f(x[i + lane]);
  for (size_t i = whole; i < n; i++) lanes[i - whole] += f(x[i]);
  float total = 0;
  for (size_t lane = 0; lane < LANES; lane++) total += lanes[lane];
  return total;
}

// NaN goes through.
inline float greater(float a, float b) { return a > b || a != a ? a : b; }

inline float greatest(const float* x, size_t n) {
  float lanes[LANES];
  std::fill_n(lanes, LANES, x[0]);
  size_t whole = n - n % LANES;
  for (size_t i = 0; i < whole; i += LANES)
    for (size_t lane = 0; lane < LANES; lane++) lanes[lane] = greater(lanes[lane], x[i + lane]);
  for (size_t i = whole; i < n; i++) lanes[0] = greater(lanes[0], x[i]);
  float most = lanes[0];
  for (size_t lane = 1; lane < LANES; lane++) most = greater(most, lanes[lane]);
  return most;
}

// With `queries`, each `queries` rows have a causal mask: the last of them sees all columns, each before it one
// fewer.
void softmax(const float* const* inputs, float* output, size_t rows, size_t columns, double queries) {
  size_t period = static_cast<size_t>(queries);
  for (size_t row = 0; row < rows; row++) {
    const float* x = inputs[0] + row * columns;
    float* out = output + row * columns;
    size_t hidden = period ? period - 1 - row % period : 0;
    size_t seen = columns > hidden ? columns - hidden : 0;
    std::fill(out + seen, out + columns, 0.0f);
    if (seen == 0) continue;
    float most = greatest(x, seen);
    const void* in = x;
    map<float, 1>(&in, out, seen, [most](float x) { return expf(x - most); });
    float inverse = 1.0f / sum(out, seen, [](float x) { return x; });
    for (size_t i = 0; i < seen; i++) out[i] *= inverse;
  }
}

template <class F>
inline void scaled(const float* x, const float* weight, const float* bias, float* out, size_t n, F f) {
  if (weight && bias) {
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) out[i] = f(x[i]) * weight[i] + bias[i];
  } else if (weight) {
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) out[i] = f(x[i]) * weight[i];
  } else if (bias) {
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) out[i] = f(x[i]) + bias[i];
  } else {
#pragma GCC ivdep
    for (size_t i = 0; i < n; i++) out[i] = f(x[i]);
  }
}

void rms_norm(const float* const* inputs, float* output, size_t rows, size_t columns, double eps) {
  for (size_t row = 0; row < rows; row++) {
    const float* x = inputs[0] + row * columns;
    float square = sum(x, columns, [](float x) { return x * x; }) / columns;
    float inverse = 1.0f / sqrtf(square + static_cast<float>(eps));
    scaled(x, inputs[1], nullptr, output + row * columns, columns, [inverse](float x) { return x * inverse; });
  }
}

void layer_norm(const float* const* inputs, float* output, size_t rows, size_t columns, double eps) {
  for (size_t row = 0; row < rows; row++) {
    const float* x = inputs[0] + row * columns;
    float mean = sum(x, columns, [](float x) { return x; }) / columns;
    float variance = sum(x, columns, [mean](float x) { return (x - mean) * (x - mean); }) / columns;
    float inverse = 1.0f / sqrtf(variance + static_cast<float>(eps));
    scaled(x, inputs[1], inputs[2], output + row * columns, columns, [mean, inverse](float x) {
      return (x - mean) * inverse;
    });
  }
}

// By the names of Emily's operations; `where` by the width of what is chosen in bits.
constexpr NamedMap maps[] = {
    {"exp", map_exp}, {"expm1", map_expm1}, {"log", map_log}, {"log1p", map_log1p},
    {"log2", map_log2}, {"log10", map_log10}, {"sqrt", map_sqrt}, {"rsqrt", map_rsqrt},
    {"sin", map_sin}, {"cos", map_cos}, {"tan", map_tan},
    {"arcsin", map_arcsin}, {"arccos", map_arccos}, {"arctan", map_arctan},
    {"sinh", map_sinh}, {"cosh", map_cosh}, {"tanh", map_tanh},
    {"arcsinh", map_arcsinh}, {"arccosh", map_arccosh}, {"arctanh", map_arctanh},
    {"erf", map_erf}, {"erfinv", map_erfinv}, {"sigmoid", map_sigmoid},
    {"floor", map_floor}, {"ceil", map_ceil}, {"power", map_power}, {"arctan2", map_arctan2},
    {"where8", map_where<uint8_t>}, {"where16", map_where<uint16_t>},
    {"where32", map_where<uint32_t>}, {"where64", map_where<uint64_t>},
    {nullptr, nullptr}};

constexpr NamedRows rows[] = {
    {"softmax", softmax}, {"rms_norm", rms_norm}, {"layer_norm", layer_norm}, {nullptr, nullptr}};

} // namespace

extern const Kernels KERNELS = {maps, rows};

} // namespace emily
