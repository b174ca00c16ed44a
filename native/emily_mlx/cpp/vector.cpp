// The loops of the kernels. Compiled once for each kind of processor, with KERNELS as the name of the result:
// the compiler makes vector instructions of them, and of the functions of <cmath> calls of the C library's
// vector functions.
#include "functions.h"
#include "vector.h"

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
  void NAME(const void* const* inputs, void* output, size_t n) {                                \
    map<float, 1>(inputs, output, n, [](float f) { [[maybe_unused]] double x = f; return static_cast<float>(EXPRESSION); }); \
  }
#define BINARY(NAME, EXPRESSION)                                       \
  void NAME(const void* const* inputs, void* output, size_t n) { \
    map<float, 2>(inputs, output, n, [](float f, float g) {            \
      double x = f, y = g;                                             \
      return static_cast<float>(EXPRESSION);                           \
    });                                                                \
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

UNARY(map_expm1, expm1(x))
UNARY(map_log, log(x))
UNARY(map_log1p, log1p(x))
UNARY(map_log2, log2(x))
UNARY(map_log10, log10(x))
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
UNARY(map_cbrt, cbrt(x))
BINARY(map_any_power, pow(x, y))
UNARY(map_square, x * x)

// The second power, which a variance is made of, is the same number by a product.
void map_power(const void* const* inputs, void* output, size_t n) {
  const float* exponents = static_cast<const float*>(inputs[1]);
  bool square = std::all_of(exponents, exponents + n, [](float exponent) { return exponent == 2; });
  (square ? map_square : map_any_power)(inputs, output, n);
}

BINARY(map_arctan2, atan2(x, y))

// By the names of Emily's operations.
constexpr NamedMap maps[] = {
    {"expm1", map_expm1}, {"log", map_log}, {"log1p", map_log1p}, {"log2", map_log2}, {"log10", map_log10},
    {"sin", map_sin}, {"cos", map_cos}, {"tan", map_tan},
    {"arcsin", map_arcsin}, {"arccos", map_arccos}, {"arctan", map_arctan},
    {"sinh", map_sinh}, {"cosh", map_cosh}, {"tanh", map_tanh},
    {"arcsinh", map_arcsinh}, {"arccosh", map_arccosh}, {"arctanh", map_arctanh},
    {"erf", map_erf}, {"erfinv", map_erfinv}, {"cbrt", map_cbrt}, {"power", map_power}, {"arctan2", map_arctan2},
    {nullptr, nullptr}};

} // namespace

extern const NamedMap* const KERNELS = maps;

} // namespace emily
