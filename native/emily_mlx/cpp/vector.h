// Functions of f32, as vector.cpp, which knows the processor, gives them to maps.cpp.
#pragma once

#include <cstddef>

namespace emily {

// One element of the result for each of the inputs, `n` of them in a row.
using Map = void (*)(const void* const* inputs, void* output, size_t n);

struct NamedMap {
  const char* name;
  Map function;
};

// The functions as compiled for one kind of processor; the list ends with a null name.
extern const NamedMap* const vector_v3;
extern const NamedMap* const vector_v4;

} // namespace emily
