// What the files share that know MLX: mlx-c's handles, errors, and the choice of a processor's kernels.
#pragma once

#include <exception>

#include "mlx/backend/cpu/encoder.h"
#include "mlx/mlx.h"
#include "mlx/primitives.h"

namespace mx = mlx::core;

extern "C" {

// As mlx-c has them: a pointer to MLX's own.
struct mlx_array { void* ctx; };
struct mlx_stream { void* ctx; };
struct mlx_vector_array { void* ctx; };

void _mlx_error(const char* file, const int line, const char* format, ...);

// The version of x86-64 that kernels are wanted for, or 0.
int emily_level();
}

namespace emily {

// What is compiled for the level that Rust has chosen, or null where there is nothing for it.
template <class T>
const T* for_processor(const T* v3, const T* v4) {
  switch (emily_level()) {
    case 4: return v4;
    case 3: return v3;
    default: return nullptr;
  }
}

// Calls `f`; what it throws becomes mlx-c's error and the status of a failure.
template <class F>
int guarded(const F& f) {
  try {
    f();
    return 0;
  } catch (const std::exception& error) {
    _mlx_error(__FILE__, __LINE__, "%s", error.what());
    return 1;
  }
}

} // namespace emily
