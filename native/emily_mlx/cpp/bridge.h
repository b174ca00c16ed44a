// What the files share that know MLX: mlx-c's handles and errors.
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
}

namespace emily {

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
