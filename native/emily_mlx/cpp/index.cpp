// Rows of an array by their numbers, which are clamped to those that there are. Compiled as vector.cpp is.
#include "kernels.h"

#include <algorithm>
#include <cstdint>

namespace emily {
namespace {

template <class I>
inline size_t clamped(I index, size_t rows) {
  if (index < 0) return 0;
  return std::min(static_cast<size_t>(index), rows - 1);
}

template <class T, class I>
void take(const void* from, const void* indices, const void*, void* to, size_t count, Table table) {
  const T* x = static_cast<const T*>(from);
  const I* at = static_cast<const I*>(indices);
  T* out = static_cast<T*>(to);
  auto row = [x, at, table](size_t i) { return x + static_cast<int64_t>(clamped(at[i], table.rows)) * table.row_step; };
  if (table.columns == 1) {
    for (size_t i = 0; i < count; i++) out[i] = *row(i);
  } else if (table.column_step == 1) {
    for (size_t i = 0; i < count; i++) std::copy_n(row(i), table.columns, out + i * table.columns);
  } else {
    for (size_t i = 0; i < count; i++)
      for (size_t column = 0; column < table.columns; column++)
        out[i * table.columns + column] = row(i)[static_cast<int64_t>(column) * table.column_step];
  }
}

// One update after the other, on a copy of all rows unless they may be written to.
template <class T, class I, class F>
inline void update(const void* from, const void* indices, const void* updates, void* to, size_t count, Table table, F f) {
  const I* at = static_cast<const I*>(indices);
  const T* y = static_cast<const T*>(updates);
  T* out = static_cast<T*>(to);
  if (from != to) std::copy_n(static_cast<const T*>(from), table.rows * table.columns, out);
  for (size_t i = 0; i < count; i++) {
    T* row = out + clamped(at[i], table.rows) * table.columns;
    for (size_t column = 0; column < table.columns; column++) row[column] = f(row[column], y[i * table.columns + column]);
  }
}

template <class T, class I>
void scatter(const void* x, const void* indices, const void* updates, void* out, size_t count, Table table) {
  update<T, I>(x, indices, updates, out, count, table, [](T, T y) { return y; });
}

template <class T, class I>
void scatter_add(const void* x, const void* indices, const void* updates, void* out, size_t count, Table table) {
  update<T, I>(x, indices, updates, out, count, table, [](T x, T y) { return static_cast<T>(x + y); });
}

#define BY_EVERY_INDEX(NAME, FUNCTION, T)                                                                         \
  {NAME "_u8", FUNCTION<T, uint8_t>}, {NAME "_u16", FUNCTION<T, uint16_t>}, {NAME "_u32", FUNCTION<T, uint32_t>}, \
  {NAME "_u64", FUNCTION<T, uint64_t>}, {NAME "_s8", FUNCTION<T, int8_t>}, {NAME "_s16", FUNCTION<T, int16_t>},   \
  {NAME "_s32", FUNCTION<T, int32_t>}, {NAME "_s64", FUNCTION<T, int64_t>}

#define BY_EVERY_WIDTH(NAME, FUNCTION)                                                                  \
  BY_EVERY_INDEX(NAME "_8", FUNCTION, uint8_t), BY_EVERY_INDEX(NAME "_16", FUNCTION, uint16_t),         \
  BY_EVERY_INDEX(NAME "_32", FUNCTION, uint32_t), BY_EVERY_INDEX(NAME "_64", FUNCTION, uint64_t)

// By the operation, the width of the elements in bits, or the type of floats that are added, and the type of the
// indices.
constexpr NamedIndexed indexed[] = {
    BY_EVERY_WIDTH("take", take), BY_EVERY_WIDTH("scatter", scatter), BY_EVERY_WIDTH("scatter_add", scatter_add),
    BY_EVERY_INDEX("scatter_add_f32", scatter_add, float), BY_EVERY_INDEX("scatter_add_f64", scatter_add, double),
    {nullptr, nullptr}};

} // namespace

extern const Kernels KERNELS = {nullptr, nullptr, nullptr, indexed};

} // namespace emily
