// Four doubles in a vector, which every processor that the kernels are compiled for has.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace emily {
namespace {

using Doubles = __m256d;
constexpr int64_t WIDTH = 4;

// From f32, exactly, and to f32, rounded.
inline Doubles load(const float* from) { return _mm256_cvtps_pd(_mm_loadu_ps(from)); }
// Those that lie `stride` apart.
inline Doubles load(const float* from, int64_t stride) {
  return _mm256_cvtps_pd(_mm_setr_ps(from[0], from[stride], from[2 * stride], from[3 * stride]));
}
// The first `count` of them, and zeros.
inline Doubles load_first(const float* from, int64_t count) {
  __m128i places = _mm_setr_epi32(0, 1, 2, 3);
  return _mm256_cvtps_pd(_mm_maskload_ps(from, _mm_cmpgt_epi32(_mm_set1_epi32(static_cast<int>(count)), places)));
}
inline void store(Doubles x, float* to) { _mm_storeu_ps(to, _mm256_cvtpd_ps(x)); }

inline Doubles load(const double* from) { return _mm256_loadu_pd(from); }
inline void store(Doubles x, double* to) { _mm256_storeu_pd(to, x); }

} // namespace
} // namespace emily
