// Arithmetic of integers where MLX's loops, or the processor, mean less than Emily says: divisors of zero, shifts by
// the width or more, negative exponents, numbers that no integer is. Compiled as vector.cpp is.
#include "kernels.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace emily {
namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;

// The unsigned type in which numbers of type T wrap. Narrower ones would become int, which must not overflow.
template <class T>
using Wrapping = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T, class F>
inline void each_pair(const void* const* inputs, void* output, size_t n, F f) {
  const T* x = static_cast<const T*>(inputs[0]);
  const T* y = static_cast<const T*>(inputs[1]);
  T* out = static_cast<T*>(output);
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++) out[i] = f(x[i], y[i]);
}

template <class T>
inline T negated(T x) { return static_cast<T>(Wrapping<T>(0) - static_cast<Wrapping<T>>(x)); }

template <class T>
inline bool is_minus_one(T x) { return std::is_signed_v<T> && x == static_cast<T>(-1); }

// The quotient by what is neither 0 nor -1. Up to 32 bits a quotient of doubles never rounds up to the next integer.
template <class T>
inline T divide(T x, T y) {
  if constexpr (sizeof(T) == 8) {
    return x / y;
  } else if constexpr (std::is_same_v<T, uint32_t>) {
    // The processor converts signed integers only, so that the range is moved to theirs and back.
    auto wide = [](uint32_t x) { return static_cast<double>(static_cast<int32_t>(x ^ 0x80000000u)) + 0x1p31; };
    double quotient = __builtin_trunc(wide(x) / wide(y));
    return static_cast<uint32_t>(static_cast<int32_t>(quotient - 0x1p31)) ^ 0x80000000u;
  } else {
    return static_cast<T>(static_cast<int32_t>(static_cast<double>(x) / static_cast<double>(y)));
  }
}

// Towards zero. By 0 all bits are set; the least number by -1 is itself.
template <class T>
inline T quotient(T x, T y) {
  bool back = is_minus_one(y);
  T whole = divide<T>(x, y == 0 || back ? 1 : y);
  return y == 0 ? static_cast<T>(-1) : back ? negated(x) : whole;
}

// With the sign of the dividend. By 0 it is the dividend.
template <class T>
inline T rest(T x, T y) {
  T whole = divide<T>(x, y == 0 || is_minus_one(y) ? 1 : y);
  T left = static_cast<T>(static_cast<Wrapping<T>>(x) - static_cast<Wrapping<T>>(y) * static_cast<Wrapping<T>>(whole));
  return is_minus_one(y) ? 0 : left;
}

template <class T>
void floor_divide(const void* const* inputs, void* output, size_t n, double) {
  each_pair<T>(inputs, output, n, [](T x, T y) { return quotient(x, y); });
}

template <class T>
void fmod(const void* const* inputs, void* output, size_t n, double) {
  each_pair<T>(inputs, output, n, [](T x, T y) { return rest(x, y); });
}

// With the sign of the divisor.
template <class T>
void remainder(const void* const* inputs, void* output, size_t n, double) {
  each_pair<T>(inputs, output, n, [](T x, T y) {
    T left = rest(x, y);
    bool differs = left != 0 && ((left < 0) != (y < 0));
    return static_cast<T>(differs ? left + y : left);
  });
}

// By squares, for many numbers at once. A negative power is the integer part of the
// reciprocal: 1 and -1 keep their parity, the rest are 0.
template <class T>
void power(const void* const* inputs, void* output, size_t n, double) {
  constexpr size_t LANES = 64;
  using W = Wrapping<T>;
  const T* x = static_cast<const T*>(inputs[0]);
  const T* y = static_cast<const T*>(inputs[1]);
  T* out = static_cast<T*>(output);
  for (size_t at = 0; at < n; at += LANES) {
    size_t count = std::min(LANES, n - at);
    T base[LANES] = {}, to[LANES] = {};
    std::copy_n(x + at, count, base);
    std::copy_n(y + at, count, to);
    W square[LANES], exponent[LANES], result[LANES], bits = 0;
    for (size_t i = 0; i < LANES; i++) {
      // All bits set, or none: without branches.
      W unit = W(0) - ((base[i] == 1) | is_minus_one(base[i])), negative = W(0) - (to[i] < 0);
      square[i] = static_cast<W>(base[i]);
      exponent[i] = static_cast<W>(to[i]) & (~negative | (unit & 1));
      result[i] = 1 & (~negative | unit);
      bits |= exponent[i];
    }
    for (; bits != 0; bits >>= 1) {
      for (size_t i = 0; i < LANES; i++) {
        // By the square or 1.
        result[i] *= ((square[i] - 1) & (W(0) - (exponent[i] & 1))) + 1;
        square[i] *= square[i];
        exponent[i] >>= 1;
      }
    }
    for (size_t i = 0; i < LANES; i++) base[i] = static_cast<T>(result[i]);
    std::copy_n(base, count, out + at);
  }
}

// By the width or more, or a negative count, all bits are shifted out.
template <class T>
void left_shift(const void* const* inputs, void* output, size_t n, double) {
  constexpr Unsigned<T> BITS = 8 * sizeof(T);
  each_pair<T>(inputs, output, n, [](T x, T y) {
    Unsigned<T> count = static_cast<Unsigned<T>>(y);
    return static_cast<T>(count < BITS ? static_cast<Wrapping<T>>(x) << (count & (BITS - 1)) : 0);
  });
}

template <class T>
void right_shift(const void* const* inputs, void* output, size_t n, double) {
  constexpr Unsigned<T> BITS = 8 * sizeof(T);
  each_pair<T>(inputs, output, n, [](T x, T y) {
    Unsigned<T> count = static_cast<Unsigned<T>>(y);
    if constexpr (std::is_signed_v<T>) return static_cast<T>(x >> (count < BITS ? count : BITS - 1));
    else return static_cast<T>(count < BITS ? x >> (count & (BITS - 1)) : 0);
  });
}

// From 0 to `option`, which the type holds.
template <class T>
void clamp(const void* const* inputs, void* output, size_t n, double option) {
  const T* x = static_cast<const T*>(inputs[0]);
  T* out = static_cast<T*>(output);
  T most = static_cast<T>(option);
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++) out[i] = x[i] < 0 ? 0 : x[i] > most ? most : x[i];
}

// Truncated, and of what is left the bits that the type has. NaN becomes 0, the infinities the ends of the range.
template <class F, class T>
void to_integer(const void* const* inputs, void* output, size_t n, double) {
  using Whole = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  constexpr F HALF = sizeof(T) == 8 ? 0x1p63 : 0x1p31;
  constexpr F MOST = std::numeric_limits<F>::max();
  const F* x = static_cast<const F*>(inputs[0]);
  T* out = static_cast<T*>(output);
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++) {
    F number = x[i];
    bool infinite = number > MOST || number < -MOST;
    // Every step from here on is exact.
    F whole = std::is_same_v<F, float> ? F(__builtin_truncf(number)) : F(__builtin_trunc(number));
    F times = std::is_same_v<F, float> ? F(__builtin_truncf(whole / (2 * HALF))) : F(__builtin_trunc(whole / (2 * HALF)));
    F left = whole - times * (2 * HALF);
    left = left >= HALF ? left - 2 * HALF : left < -HALF ? left + 2 * HALF : left;
    left = infinite || number != number ? 0 : left;
    T cut = static_cast<T>(static_cast<Whole>(left));
    T end = number > 0 ? std::numeric_limits<T>::max() : std::numeric_limits<T>::min();
    out[i] = infinite ? end : cut;
  }
}

#define OF_EVERY_TYPE(NAME, FUNCTION)                                                                          \
  {NAME "_u8", FUNCTION<uint8_t>}, {NAME "_u16", FUNCTION<uint16_t>}, {NAME "_u32", FUNCTION<uint32_t>},       \
  {NAME "_u64", FUNCTION<uint64_t>}, {NAME "_s8", FUNCTION<int8_t>}, {NAME "_s16", FUNCTION<int16_t>},         \
  {NAME "_s32", FUNCTION<int32_t>}, {NAME "_s64", FUNCTION<int64_t>}

template <class T>
constexpr Map from_f32 = to_integer<float, T>;
template <class T>
constexpr Map from_f64 = to_integer<double, T>;

// By the names of Emily's operations and the type; a cast by both types.
constexpr NamedMap maps[] = {
    OF_EVERY_TYPE("floor_divide", floor_divide), OF_EVERY_TYPE("fmod", fmod), OF_EVERY_TYPE("remainder", remainder),
    OF_EVERY_TYPE("power", power), OF_EVERY_TYPE("integer_power", power),
    OF_EVERY_TYPE("wide_left_shift", left_shift), OF_EVERY_TYPE("wide_right_shift", right_shift),
    OF_EVERY_TYPE("clamp", clamp), OF_EVERY_TYPE("to_integer_f32", from_f32), OF_EVERY_TYPE("to_integer_f64", from_f64),
    {nullptr, nullptr}};

} // namespace

extern const Kernels KERNELS = {maps, nullptr, nullptr, nullptr};

} // namespace emily
