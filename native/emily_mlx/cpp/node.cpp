// The one node that Emily adds to MLX's graph: a kernel of Rust's, for a CPU. Rust decides, C++ does what needs MLX's
// classes.
#include <string>
#include <vector>

#include "bridge.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"

extern "C" {

// As in `src/runtime/kernel.rs`: the inputs whose memory and whose order the output has, or less than none.
struct emily_place {
  int taken;
  int like;
};

const char* emily_kernel_name(const void* kernel);
emily_place emily_kernel_place(const void* kernel, const emily_memory* inputs, size_t count, size_t item, size_t bytes);
void* emily_kernel_task(const emily_memory* inputs, size_t count, const emily_memory* output, emily_place place);
bool emily_kernel_run(const void* kernel, const void* task);
void emily_kernel_drop(void* kernel);
void emily_kernel_drop_task(void* task);
}

namespace {

class Node final : public mx::UnaryPrimitive {
 public:
  Node(mx::Stream stream, std::shared_ptr<void> kernel) : UnaryPrimitive(stream), kernel_(std::move(kernel)) {}

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::runtime_error(std::string("[") + name() + "] is a kernel for the CPU.");
  }

  const char* name() const override { return emily_kernel_name(kernel_.get()); }

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    std::vector<emily_memory> memory;
    memory.reserve(inputs.size() + 1);
    for (const auto& input : inputs) memory.push_back(emily::memory_of(input));
    auto place = emily_kernel_place(kernel_.get(), memory.data(), inputs.size(), out.itemsize(), out.nbytes());
    if (place.taken >= 0) {
      out.copy_shared_buffer(inputs[place.taken]);
    } else if (place.like >= 0) {
      const auto& like = inputs[place.like];
      auto size = like.data_size();
      out.set_data(mx::allocator::malloc(size * out.itemsize()), size, like.strides(), like.flags());
    } else {
      out.set_data(mx::allocator::malloc(out.nbytes()));
    }
    memory.push_back(emily::memory_of(out));
    auto* task = emily_kernel_task(memory.data(), inputs.size(), &memory.back(), place);
    mx::cpu::get_command_encoder(stream()).dispatch(
        [kernel = kernel_, task = std::shared_ptr<void>(task, emily_kernel_drop_task)] {
          if (!emily_kernel_run(kernel.get(), task.get()))
            throw std::runtime_error(std::string("[") + emily_kernel_name(kernel.get()) + "] The kernel failed.");
        });
  }

 private:
  std::shared_ptr<void> kernel_;
};

} // namespace

extern "C" {

// Adds a kernel to the graph, which is dropped with it. With `elementwise` the inputs are broadcast to one shape, which
// is the output's too.
int emily_add_kernel(
    mx::array** result, void* kernel, mx::array* const* inputs, size_t count, bool elementwise, const int* shape,
    size_t rank, unsigned type, size_t item, const mx::Stream* stream) {
  return emily::guarded([&] {
    std::shared_ptr<void> owned(kernel, emily_kernel_drop);
    std::vector<mx::array> arrays;
    arrays.reserve(count);
    for (size_t i = 0; i < count; i++) arrays.push_back(*inputs[i]);
    if (elementwise && count > 1) arrays = mx::broadcast_arrays(arrays, *stream);
    mx::Shape to = elementwise ? arrays[0].shape() : mx::Shape(shape, shape + rank);
    // MLX numbers its types as mlx-c does.
    mx::Dtype dtype(static_cast<mx::Dtype::Val>(type), item);
    auto node = std::make_shared<Node>(*stream, std::move(owned));
    *result = new mx::array(std::move(to), dtype, std::move(node), std::move(arrays));
  });
}
}
