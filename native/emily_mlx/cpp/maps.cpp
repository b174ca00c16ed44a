// Functions of f32 by the names of operations. The function at the end is what Rust calls.
#include <cstring>

#include "bridge.h"
#include "vector.h"

extern "C" {

// A function by name, or null where there is none or none for the level that Rust has chosen.
emily::Map emily_find_map(const char* name) {
  const auto* const* own = emily::for_processor(&emily::vector_v3, &emily::vector_v4);
  for (const auto* at = own ? *own : nullptr; at && at->name; at++)
    if (std::strcmp(at->name, name) == 0) return at->function;
  return nullptr;
}
}
