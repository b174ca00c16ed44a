// Reductions that Nx defines otherwise than MLX: where an extreme is, and truth. Compiled as vector.cpp is.
#include "kernels.h"

#include <cstdint>
#include <type_traits>

namespace emily {
namespace {

// As many elements are looked at together: whether one of them is meant takes no branches, and so vectors.
template <class T>
constexpr size_t BLOCK = 128 / sizeof(T);

// The place of the first element of which `f` is true, or `n`.
template <class T, class F>
inline size_t first(const T* x, size_t n, F f) {
  size_t at = 0;
  for (; at + BLOCK<T> <= n; at += BLOCK<T>) {
    unsigned found = 0;
    for (size_t i = 0; i < BLOCK<T>; i++) found |= f(x[at + i]);
    if (found) break;
  }
  while (at < n && !f(x[at])) at++;
  return at;
}

// The place of the last, or `n`.
template <class T, class F>
inline size_t last(const T* x, size_t n, F f) {
  size_t end = n;
  for (; end >= BLOCK<T>; end -= BLOCK<T>) {
    unsigned found = 0;
    for (size_t i = 0; i < BLOCK<T>; i++) found |= f(x[end - BLOCK<T> + i]);
    if (found) break;
  }
  while (end > 0 && !f(x[end - 1])) end--;
  return end == 0 ? n : end - 1;
}

template <class T>
inline bool has_nan(const T* x, size_t n) {
  unsigned found = 0;
  for (size_t i = 0; i < n; i++) found |= x[i] != x[i];
  return found;
}

// The greatest number, or the least, where none is NaN.
template <bool GREATEST, class T>
inline T extreme(const T* x, size_t n) {
  constexpr size_t LANES = 64 / sizeof(T);
  auto better = [](T best, T x) { return GREATEST ? (x > best ? x : best) : (x < best ? x : best); };
  T best = x[0];
  size_t whole = n - n % LANES;
  if (whole > 0) {
    T lanes[LANES];
    for (size_t i = 0; i < LANES; i++) lanes[i] = x[i];
    for (size_t at = LANES; at < whole; at += LANES)
      for (size_t i = 0; i < LANES; i++) lanes[i] = better(lanes[i], x[at + i]);
    for (size_t i = 0; i < LANES; i++) best = better(best, lanes[i]);
  }
  for (size_t i = whole; i < n; i++) best = better(best, x[i]);
  return best;
}

// The last NaN, or else the first of the extremes, or the last of them.
template <bool GREATEST, bool LAST, class T>
void place(const void* input, void* output, size_t rows, size_t columns) {
  uint32_t* out = static_cast<uint32_t*>(output);
  for (size_t row = 0; row < rows; row++) {
    const T* x = static_cast<const T*>(input) + row * columns;
    size_t at;
    if (std::is_floating_point_v<T> && has_nan(x, columns)) {
      at = last(x, columns, [](T x) { return x != x; });
    } else {
      T best = extreme<GREATEST>(x, columns);
      auto is_best = [best](T x) { return x == best; };
      at = LAST ? last(x, columns, is_best) : first(x, columns, is_best);
    }
    out[row] = static_cast<uint32_t>(at);
  }
}

// The last element that is no worse than all before it: a NaN stays where it comes first, and is passed over later.
template <bool GREATEST, class T>
void choice(const void* input, void* output, size_t rows, size_t columns) {
  uint32_t* out = static_cast<uint32_t*>(output);
  for (size_t row = 0; row < rows; row++) {
    const T* x = static_cast<const T*>(input) + row * columns;
    T best = x[0];
    uint32_t at = 0;
    for (size_t i = 1; i < columns; i++) {
      bool better = GREATEST ? x[i] >= best : x[i] <= best;
      best = better ? x[i] : best;
      at = better ? static_cast<uint32_t>(i) : at;
    }
    out[row] = at;
  }
}

// Whether all are true, or any is. `BITS` are those that make a number of the type T true: minus zero is false.
template <bool ALL, class T, T BITS>
void truth(const void* input, void* output, size_t rows, size_t columns) {
  bool* out = static_cast<bool*>(output);
  for (size_t row = 0; row < rows; row++) {
    const T* x = static_cast<const T*>(input) + row * columns;
    bool decided = first(x, columns, [](T x) { return ((x & BITS) != 0) != ALL; }) < columns;
    out[row] = decided != ALL;
  }
}

#define PLACES(TYPE, T)                                                                                     \
  {"argmax_nan_" TYPE, place<true, false, T>}, {"argmax_nan_last_" TYPE, place<true, true, T>},             \
  {"argmin_nan_" TYPE, place<false, false, T>}, {"argmin_nan_last_" TYPE, place<false, true, T>},           \
  {"window_argmax_" TYPE, choice<true, T>}, {"window_argmin_" TYPE, choice<false, T>}

#define TRUTH(TYPE, T, BITS) {"all_" TYPE, truth<true, T, BITS>}, {"any_" TYPE, truth<false, T, BITS>}

// By the names of Emily's operations and the type.
constexpr NamedFold folds[] = {
    PLACES("u8", uint8_t), PLACES("u16", uint16_t), PLACES("u32", uint32_t), PLACES("u64", uint64_t),
    PLACES("s8", int8_t), PLACES("s16", int16_t), PLACES("s32", int32_t), PLACES("s64", int64_t),
    PLACES("f32", float), PLACES("f64", double),
    TRUTH("bool", uint8_t, 0xFF), TRUTH("u8", uint8_t, 0xFF), TRUTH("s8", uint8_t, 0xFF),
    TRUTH("u16", uint16_t, 0xFFFF), TRUTH("s16", uint16_t, 0xFFFF),
    TRUTH("f16", uint16_t, 0x7FFF), TRUTH("bf16", uint16_t, 0x7FFF),
    TRUTH("u32", uint32_t, UINT32_MAX), TRUTH("s32", uint32_t, UINT32_MAX), TRUTH("f32", uint32_t, INT32_MAX),
    TRUTH("u64", uint64_t, UINT64_MAX), TRUTH("s64", uint64_t, UINT64_MAX), TRUTH("f64", uint64_t, INT64_MAX),
    {nullptr, nullptr}};

} // namespace

extern const Kernels KERNELS = {nullptr, nullptr, folds, nullptr};

} // namespace emily
