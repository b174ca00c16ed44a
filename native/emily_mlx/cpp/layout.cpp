// What MLX knows of an array's memory and of its graph, for tests: kernels trust it without a look.
#include <unordered_set>

#include "bridge.h"

extern "C" {

struct emily_memory {
  size_t buffer;
  int64_t offset;
  size_t data_size;
  size_t item;
  bool contiguous;
  bool row_contiguous;
  bool col_contiguous;
};

// The memory of an array, if it has any: bytes of the buffer and from its start, elements in it, bytes of one, flags.
bool emily_memory_of(mlx_array input, emily_memory* memory) {
  const auto& x = *static_cast<mx::array*>(input.ctx);
  if (!x.data_shared_ptr()) return false;
  auto [contiguous, row_contiguous, col_contiguous] = x.flags();
  *memory = {x.buffer_size(), x.offset(), x.data_size(), x.itemsize(), contiguous, row_contiguous, col_contiguous};
  return true;
}

// Appends to `nodes` every array that an uncomputed one is made of, itself included.
int emily_nodes(mlx_vector_array nodes, mlx_array input) {
  return emily::guarded([&] {
    auto& found = *static_cast<std::vector<mx::array>*>(nodes.ctx);
    std::unordered_set<std::uintptr_t> seen;
    size_t next = found.size();
    auto add = [&](const mx::array& x) {
      if (seen.insert(x.id()).second) found.push_back(x);
    };
    add(*static_cast<mx::array*>(input.ctx));
    for (; next < found.size(); next++) {
      auto x = found[next];
      for (const auto& from : x.inputs()) add(from);
      for (const auto& beside : x.siblings()) add(beside);
    }
  });
}
}
