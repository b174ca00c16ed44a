// Walks over the axes of arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emily {

// An axis of two arrays, with the distances of its elements in both.
struct Loop {
  int64_t size;
  int64_t first;
  int64_t second;
};

// Calls `f` with the places in both arrays for each index of the axes, the last axis first.
template <class F>
void each(const std::vector<Loop>& loops, const F& f, size_t at = 0, int64_t first = 0, int64_t second = 0) {
  if (at == loops.size()) return f(first, second);
  const Loop& loop = loops[at];
  for (int64_t i = 0; i < loop.size; i++) each(loops, f, at + 1, first + i * loop.first, second + i * loop.second);
}

} // namespace emily
