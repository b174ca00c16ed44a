// The loops of the kernels. Compiled once for each kind of processor, with KERNELS as the name of the result:
// the compiler makes vector instructions of them, and of the functions of <cmath> calls of the C library's
// vector functions.
#include "functions.h"
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

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

// Functions of f32 are computed in doubles and rounded once, as Nx.BinaryBackend does.
#define UNARY(NAME, EXPRESSION)                                                                         \
  void NAME(const void* const* inputs, void* output, size_t n, double) {                                \
    map<float, 1>(inputs, output, n, [](float f) { [[maybe_unused]] double x = f; return static_cast<float>(EXPRESSION); }); \
  }
#define BINARY(NAME, EXPRESSION)                                       \
  void NAME(const void* const* inputs, void* output, size_t n, double) { \
    map<float, 2>(inputs, output, n, [](float f, float g) {            \
      double x = f, y = g;                                             \
      return static_cast<float>(EXPRESSION);                           \
    });                                                                \
  }

// The exponential as exactly as a float can tell, in a third of the time of the C library's for doubles:
// 2^n e^r with r within half a unit of ln 2, by Taylor's series, whose rest is below 1e-9.
inline double exponential(double x) {
  // Beyond these a float is infinite or zero. NaN is neither less nor greater.
  x = x > 90 ? 90 : x;
  x = x < -110 ? -110 : x;
  // Adding this rounds to a whole number and leaves it in the lowest bits.
  constexpr double whole = 0x1.8p52;
  double shifted = x * 1.4426950408889634 + whole;
  double r = x - (shifted - whole) * 0.6931471805599453;
  double sum = 1.0 / 40320;
  for (double factor : {1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0}) sum = sum * r + factor;
  int64_t bits = (__builtin_bit_cast(int64_t, shifted) + 1023) << 52;
  return sum * __builtin_bit_cast(double, bits);
}

// The exponential of what is below zero neither overflows nor loses digits.
inline double sigmoid(double x) {
  double e = exponential(x < 0 ? x : -x);
  return (x < 0 ? e : 1) / (1 + e);
}

// Giles, "Approximating the erfinv function": a polynomial for most, another for the tails.
inline double erfinv(double y) {
  double w = -log((1 - y) * (1 + y));
  double inner = 2.81022636e-08;
  for (double factor : {3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
                        0.246640727, 1.50140941})
    inner = inner * (w - 2.5) + factor;
  double tail = -0.000200214257;
  for (double factor : {0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
                        1.00167406, 2.83297682})
    tail = tail * (sqrt(w) - 3) + factor;
  double size = y < 0 ? -y : y;
  double infinite = y * std::numeric_limits<double>::infinity();
  double finite = (w < 5 ? inner : tail) * y;
  return size == 1 ? infinite : finite;
}

UNARY(map_exp, exponential(x))
UNARY(map_expm1, expm1(x))
UNARY(map_log, log(x))
UNARY(map_log1p, log1p(x))
UNARY(map_log2, log2(x))
UNARY(map_log10, log10(x))
UNARY(map_rsqrt, 1 / sqrt(x))
UNARY(map_sin, sin(x))
UNARY(map_cos, cos(x))
UNARY(map_tan, tan(x))
UNARY(map_arcsin, asin(x))
UNARY(map_arccos, acos(x))
UNARY(map_arctan, atan(x))
UNARY(map_sinh, sinh(x))
UNARY(map_cosh, cosh(x))
UNARY(map_tanh, tanh(x))
UNARY(map_arcsinh, asinh(x))
UNARY(map_arccosh, acosh(x))
UNARY(map_arctanh, atanh(x))
UNARY(map_erf, erf(x))
UNARY(map_erfinv, erfinv(x))
UNARY(map_sigmoid, sigmoid(x))
UNARY(map_cbrt, cbrt(x))
BINARY(map_any_power, pow(x, y))
UNARY(map_square, x * x)

// The second power, which a variance is made of, is the same number by a product.
void map_power(const void* const* inputs, void* output, size_t n, double option) {
  const float* exponents = static_cast<const float*>(inputs[1]);
  bool square = std::all_of(exponents, exponents + n, [](float exponent) { return exponent == 2; });
  (square ? map_square : map_any_power)(inputs, output, n, option);
}

BINARY(map_arctan2, atan2(x, y))

// With the sign of the dividend. Numbers of 24 bits whose quotient stays below 2^28 have none that rounds up to an
// integer, so that every step is exact; the rest, and what is not finite, is left to the C library.
void map_fmod(const void* const* inputs, void* output, size_t n, double) {
  constexpr size_t BLOCK = 64;
  float* out = static_cast<float*>(output);
  for (size_t at = 0; at < n; at += BLOCK) {
    size_t count = std::min(BLOCK, n - at);
    float x[BLOCK] = {}, y[BLOCK] = {}, result[BLOCK];
    std::copy_n(static_cast<const float*>(inputs[0]) + at, count, x);
    std::copy_n(static_cast<const float*>(inputs[1]) + at, count, y);
    std::fill(y + count, y + BLOCK, 1.0f);
    bool far[BLOCK];
    unsigned others = 0;
    for (size_t i = 0; i < BLOCK; i++) {
      double dividend = __builtin_fabsf(x[i]), divisor = __builtin_fabsf(y[i]);
      double quotient = __builtin_trunc(dividend / divisor);
      result[i] = __builtin_copysignf(static_cast<float>(dividend - quotient * divisor), x[i]);
      far[i] = !(quotient < 0x1p28) | !(divisor <= std::numeric_limits<float>::max());
      others |= far[i];
    }
    for (size_t i = 0; others && i < count; i++)
      if (far[i]) result[i] = __builtin_fmodf(x[i], y[i]);
    std::copy_n(result, count, out + at);
  }
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
    map<float, 1>(&in, out, seen, [most](float x) { return static_cast<float>(exponential(x - most)); });
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

// By the names of Emily's operations.
constexpr NamedMap maps[] = {
    {"exp", map_exp}, {"expm1", map_expm1}, {"log", map_log}, {"log1p", map_log1p},
    {"log2", map_log2}, {"log10", map_log10}, {"rsqrt", map_rsqrt},
    {"sin", map_sin}, {"cos", map_cos}, {"tan", map_tan},
    {"arcsin", map_arcsin}, {"arccos", map_arccos}, {"arctan", map_arctan},
    {"sinh", map_sinh}, {"cosh", map_cosh}, {"tanh", map_tanh},
    {"arcsinh", map_arcsinh}, {"arccosh", map_arccosh}, {"arctanh", map_arctanh},
    {"erf", map_erf}, {"erfinv", map_erfinv}, {"sigmoid", map_sigmoid},
    {"cbrt", map_cbrt},
    {"power", map_power}, {"fmod", map_fmod}, {"arctan2", map_arctan2},
    {nullptr, nullptr}};

constexpr NamedRows rows[] = {
    {"softmax", softmax}, {"rms_norm", rms_norm}, {"layer_norm", layer_norm}, {nullptr, nullptr}};

} // namespace

extern const Kernels KERNELS = {maps, rows, nullptr, nullptr};

} // namespace emily
