// What the files share: mlx-c's errors, and an array's memory as Rust looks at it.
#pragma once

#include <exception>

#include "mlx/mlx.h"

namespace mx = mlx::core;

// mlx-c's. Its handles are pointers to MLX's arrays and streams.
extern "C" void _mlx_error(const char* file, const int line, const char* format, ...);

// As in `src/runtime/inspect.rs`.
struct emily_memory {
  char* data;
  const int32_t* shape;
  const int64_t* strides;
  size_t rank, item, buffer, data_size;
  int64_t offset;
  bool contiguous, row_contiguous, col_contiguous, donatable;
};

// The memory of an array that has some, as this machine or its NVIDIA GPU sees it. It is as long as the array is.
extern "C" bool emily_memory_of(const mx::array* x, bool on_device, emily_memory* memory);

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
