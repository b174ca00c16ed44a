// The nodes that Emily adds to MLX's graph. One is a kernel of Rust's, for a CPU: Rust decides, C++ does what needs
// MLX's classes.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bridge.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"

extern "C" {

// As in `src/runtime/kernel.rs`: the inputs whose memory and whose order the output has, or less than none.
struct emily_place {
  int taken, like;
};

const char* emily_kernel_name(const void* kernel);
int emily_kernel_steps(const void* kernel);
emily_place emily_kernel_place(const void* kernel, const emily_memory* inputs, size_t count, size_t item, size_t bytes);
void* emily_kernel_task(const emily_memory* inputs, size_t count, const emily_memory* output, emily_place place);
const char* emily_kernel_run(const void* kernel, const void* task);
void emily_kernel_drop(void* kernel);
void emily_kernel_drop_task(void* task);
}

namespace {

// Owns its kernel. `src/runtime/replay/tasks.rs` knows what it queues by its name.
class Node final : public mx::UnaryPrimitive, public std::enable_shared_from_this<Node> {
 public:
  Node(mx::Stream stream, void* kernel) : UnaryPrimitive(stream), kernel_(kernel) {}
  ~Node() override { emily_kernel_drop(kernel_); }

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::runtime_error(std::string("[") + name() + "] is a kernel for the CPU.");
  }

  const char* name() const override { return emily_kernel_name(kernel_); }

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    mx::cpu::get_command_encoder(stream()).dispatch(
        [node = shared_from_this(), task = prepare(inputs, out)] { node->run(task.get()); });
  }

  // On this thread.
  void eval_here(const std::vector<mx::array>& inputs, mx::array& out) const { run(prepare(inputs, out).get()); }

  int steps() const { return emily_kernel_steps(kernel_); }

 private:
  void run(const void* task) const {
    if (auto* failure = emily_kernel_run(kernel_, task)) throw std::runtime_error(failure);
  }

  // Finds memory for the output; gives what is left to do.
  std::shared_ptr<void> prepare(const std::vector<mx::array>& inputs, mx::array& out) const {
    auto count = inputs.size();
    std::vector<emily_memory> memory(count + 1);
    for (size_t i = 0; i < count; i++) emily_memory_of(&inputs[i], false, &memory[i]);
    auto place = emily_kernel_place(kernel_, memory.data(), count, out.itemsize(), out.nbytes());
    if (place.taken >= 0) {
      out.copy_shared_buffer(inputs[place.taken]);
    } else if (place.like >= 0) {
      const auto& like = inputs[place.like];
      auto size = like.data_size();
      out.set_data(mx::allocator::malloc(size * out.itemsize()), size, like.strides(), like.flags());
    } else {
      out.set_data(mx::allocator::malloc(out.nbytes()));
    }
    emily_memory_of(&out, false, &memory[count]);
    return {emily_kernel_task(memory.data(), count, &memory[count], place), emily_kernel_drop_task};
  }

  void* kernel_;
};

} // namespace

extern "C" {

// How many steps each element takes of what a kernel computes, 0 where that is for no caller's thread; less of all
// else.
int emily_steps(const mx::array* x) {
  auto* node = x->has_primitive() ? dynamic_cast<const Node*>(&x->primitive()) : nullptr;
  return node ? node->steps() : -1;
}

// Computes an array, whose inputs are computed, on this thread: by a kernel, or as a view of an input. Of what MLX
// `queues` hands over the functions that compute it, of which the last has what the others need.
int emily_begin(mx::array* x, bool queues) {
  return emily::guarded([=] {
    if (auto* node = dynamic_cast<const Node*>(&x->primitive())) return node->eval_here(x->inputs(), *x);
    std::vector<mx::array> outputs{*x};
    x->primitive().eval_cpu(x->inputs(), outputs);
    if (!queues) return;
    auto& encoder = mx::cpu::get_command_encoder(x->primitive().stream());
    auto needed = std::exchange(encoder.temporaries(), {});
    if (!needed.empty()) encoder.dispatch([needed = std::move(needed)] {});
  });
}

// Says that an array is computed.
void emily_end(mx::array* x) {
  x->set_status(mx::array::Status::available);
  x->detach();
}

// Adds a kernel to the graph, which is dropped with it.
int emily_add_kernel(
    mx::array** result, void* kernel, mx::array* const* inputs, size_t count, const int* shape, size_t rank,
    unsigned type, size_t item, const mx::Stream* stream) {
  return emily::guarded([&] {
    auto node = std::make_shared<Node>(*stream, kernel);
    std::vector<mx::array> arrays;
    arrays.reserve(count);
    for (size_t i = 0; i < count; i++) arrays.push_back(*inputs[i]);
    // MLX numbers its types as mlx-c does.
    mx::Dtype dtype(static_cast<mx::Dtype::Val>(type), item);
    *result = new mx::array(mx::Shape(shape, shape + rank), dtype, std::move(node), std::move(arrays));
  });
}
}
