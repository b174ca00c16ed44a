// Comparisons of two numbers of one type. Compiled as vector.cpp is.
#include "kernels.h"

#include <cstdint>
#include <functional>

namespace emily {
namespace {

template <class F, class T>
void compare(const void* const* inputs, void* output, size_t n, double) {
  const T* x = static_cast<const T*>(inputs[0]);
  const T* y = static_cast<const T*>(inputs[1]);
  uint8_t* out = static_cast<uint8_t*>(output);
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++) out[i] = F()(x[i], y[i]);
}

#define COMPARISONS(SUFFIX, T)                                                                                   \
  {"equal" SUFFIX, compare<std::equal_to<>, T>}, {"not_equal" SUFFIX, compare<std::not_equal_to<>, T>},          \
  {"greater" SUFFIX, compare<std::greater<>, T>}, {"greater_equal" SUFFIX, compare<std::greater_equal<>, T>},    \
  {"less" SUFFIX, compare<std::less<>, T>}, {"less_equal" SUFFIX, compare<std::less_equal<>, T>}

// By the names of Emily's operations, with a type where it is not f32.
constexpr NamedMap maps[] = {
    COMPARISONS("", float), COMPARISONS("_f64", double),
    COMPARISONS("_u8", uint8_t), COMPARISONS("_u16", uint16_t), COMPARISONS("_u32", uint32_t), COMPARISONS("_u64", uint64_t),
    COMPARISONS("_s8", int8_t), COMPARISONS("_s16", int16_t), COMPARISONS("_s32", int32_t), COMPARISONS("_s64", int64_t),
    {nullptr, nullptr}};

} // namespace

extern const Kernels KERNELS = {maps, nullptr, nullptr, nullptr};

} // namespace emily
