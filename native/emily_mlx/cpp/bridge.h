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

// How many steps it takes to compute an array by a kernel that whoever asks may run; 0 elsewhere.
size_t steps_of_kernel(const mx::array& array);

// Computes such an array on this thread; its inputs are computed.
void run_kernel(mx::array array);

} // namespace emily
