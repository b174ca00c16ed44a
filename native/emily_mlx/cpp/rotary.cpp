// Rotary embeddings of f32, whose angles are computed in doubles, once for all heads. Compiled as vector.cpp is,
// with KERNELS as the name of the result.
#include "functions.h"
#include "rotary.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace emily {
namespace {

// Angles are computed in whole vectors of this many, so that each is the same wherever it stands.
constexpr int64_t LANES = 16;

struct Turn {
  std::vector<float> cosine;
  std::vector<float> sine;

  explicit Turn(size_t planes) : cosine(planes), sine(planes) {}

  void to(double position, const std::vector<double>& frequencies) {
    const double* frequency = frequencies.data();
    float* c = cosine.data();
    float* s = sine.data();
    int64_t planes = static_cast<int64_t>(cosine.size());
#pragma GCC ivdep
    for (int64_t i = 0; i < planes; i++) c[i] = static_cast<float>(cos(position * frequency[i]));
#pragma GCC ivdep
    for (int64_t i = 0; i < planes; i++) s[i] = static_cast<float>(sin(position * frequency[i]));
  }

  // `step` is from plane to plane, `apart` between the two of a plane.
  void row(const float* x, float* out, int64_t half, int64_t step, int64_t apart) const {
    const float* c = cosine.data();
    const float* s = sine.data();
#pragma GCC ivdep
    for (int64_t i = 0; i < half; i++) {
      float first = x[i * step], second = x[i * step + apart];
      out[i * step] = first * c[i] - second * s[i];
      out[i * step + apart] = first * s[i] + second * c[i];
    }
  }
};

} // namespace

void KERNELS(const Rotary& rotary, const float* x, const int32_t* offsets, const float* periods, float* output) {
  int64_t half = rotary.dims / 2;
  std::vector<double> frequencies((half + LANES - 1) / LANES * LANES);
  for (int64_t i = 0; i < half; i++)
    frequencies[i] = rotary.scale * (periods ? 1.0 / periods[i] : std::pow(rotary.base, -2.0 * i / rotary.dims));
  Turn turn(frequencies.size());

  int64_t groups = rotary.own_offsets ? rotary.batches : 1;
  int64_t rows = rotary.own_offsets ? rotary.heads : rotary.batches * rotary.heads;
  for (int64_t group = 0; group < groups; group++) {
    for (int64_t at = 0; at < rotary.positions; at++) {
      turn.to(static_cast<double>(offsets[group]) + at, frequencies);
      for (int64_t row = 0; row < rows; row++) {
        int64_t start = ((group * rows + row) * rotary.positions + at) * rotary.columns;
        const float* from = x + start;
        float* to = output + start;
        if (rotary.traditional) turn.row(from, to, half, 2, 1);
        else turn.row(from, to, half, 1, half);
        std::copy(from + rotary.dims, from + rotary.columns, to + rotary.dims);
      }
    }
  }
}

} // namespace emily
