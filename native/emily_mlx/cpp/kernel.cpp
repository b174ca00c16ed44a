// Emily's kernels as nodes of MLX's graph, for a CPU. What they compute is a function of Rust.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bridge.h"

extern "C" {

// An array as it lies in memory; strides count elements. `data_size` elements lie without gaps from `data` on, where
// that is said to be so.
struct emily_view {
  char* data;
  const int64_t* shape;
  const int64_t* strides;
  size_t rank;
  size_t width;
  size_t data_size;
};

// What computes the output, an input of which lies in the output's place unless `taken` is negative. With `in_order`
// the elements of all that are more than a scalar lie in one order without gaps. Answers whether it succeeded.
struct emily_kernel {
  void* data;
  bool (*run)(const void* data, const emily_view* inputs, size_t count, const emily_view* output, int taken, bool in_order);
  void (*drop)(void* data);
  // How many steps each element takes, where they are quick; 0 where they may not be.
  uint32_t steps;
};

// Where an output's elements go: into memory of their own, in the order of the inputs' and into the place of one
// where that can be, or into that of the first.
enum emily_placement { EMILY_APART, EMILY_ELEMENTWISE, EMILY_IN_FIRST };
}

namespace emily {
namespace {

// By the numbers that mlx-c gives them.
const mx::Dtype TYPES[] = {mx::bool_, mx::uint8, mx::uint16, mx::uint32, mx::uint64, mx::int8, mx::int16,
                           mx::int32, mx::int64, mx::float16, mx::float32, mx::float64, mx::bfloat16, mx::complex64};

// A kernel of Rust's, which is dropped with the last that needs it.
struct Kernel {
  Kernel(const emily_kernel& kernel, std::string name) : rust(kernel), name(std::move(name)) {}
  ~Kernel() { rust.drop(rust.data); }
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  emily_kernel rust;
  std::string name;
};

// What is left to do once the arrays are known.
class Task {
 public:
  Task(std::shared_ptr<const Kernel> kernel, const std::vector<mx::array>& inputs, const mx::array& out, int taken, bool in_order)
      : kernel_(std::move(kernel)), taken_(taken), in_order_(in_order) {
    size_t axes = out.ndim();
    for (const auto& input : inputs) axes += input.ndim();
    numbers_.reserve(2 * axes);
    views_.reserve(inputs.size() + 1);
    for (const auto& input : inputs) add(input);
    add(out);
  }

  void run() const {
    size_t count = views_.size() - 1;
    const auto& rust = kernel_->rust;
    if (!rust.run(rust.data, views_.data(), count, &views_[count], taken_, in_order_))
      throw std::runtime_error("[" + kernel_->name + "] The kernel failed.");
  }

 private:
  void add(const mx::array& array) {
    const int64_t* shape = numbers_.data() + numbers_.size();
    numbers_.insert(numbers_.end(), array.shape().begin(), array.shape().end());
    numbers_.insert(numbers_.end(), array.strides().begin(), array.strides().end());
    auto* data = const_cast<char*>(array.data<char>());
    views_.push_back({data, shape, shape + array.ndim(), array.ndim(), array.itemsize(), array.data_size()});
  }

  std::shared_ptr<const Kernel> kernel_;
  int taken_;
  bool in_order_;
  // The sizes and strides that the views point to.
  std::vector<int64_t> numbers_;
  std::vector<emily_view> views_;
};

bool is_scalar(const mx::array& array) {
  for (size_t axis = 0; axis < array.ndim(); axis++)
    if (array.shape(axis) != 1 && array.strides(axis) != 0) return false;
  return true;
}

// As in MLX: memory that is much larger than the output stays free for others.
bool can_take(const mx::array& input, const mx::array& out) {
  constexpr size_t spare = 16384;
  return input.is_donatable() && input.itemsize() == out.itemsize() && input.buffer_size() <= out.nbytes() + spare &&
      reinterpret_cast<uintptr_t>(input.data<char>()) % input.itemsize() == 0;
}

// An input in whose order the elements of all lie that are more than a scalar, or null.
const mx::array* in_order(const std::vector<mx::array>& inputs) {
  const mx::array* like = nullptr;
  for (const auto& input : inputs) {
    if (is_scalar(input)) continue;
    if (!input.flags().contiguous) return nullptr;
    if (!like) like = &input;
    bool same = (input.flags().row_contiguous && like->flags().row_contiguous) || input.strides() == like->strides();
    if (!same || input.data_size() != like->data_size()) return nullptr;
  }
  if (like) return like;
  return inputs[0].flags().contiguous && inputs[0].data_size() == 1 ? &inputs[0] : nullptr;
}

class KernelPrimitive : public mx::UnaryPrimitive {
 public:
  KernelPrimitive(mx::Stream stream, std::shared_ptr<const Kernel> kernel, emily_placement placement)
      : UnaryPrimitive(stream), kernel_(std::move(kernel)), placement_(placement) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    auto task = std::make_shared<const Task>(place(inputs, out));
    mx::cpu::get_command_encoder(stream()).dispatch([task = std::move(task)] { task->run(); });
  }

  void run(const std::vector<mx::array>& inputs, mx::array& out) const { place(inputs, out).run(); }

  size_t steps() const { return kernel_->rust.steps; }

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::runtime_error("[" + kernel_->name + "] is a kernel for the CPU.");
  }

  const char* name() const override { return kernel_->name.c_str(); }

 private:
  // Finds memory for the output.
  Task place(const std::vector<mx::array>& inputs, mx::array& out) const {
    const auto* like = placement_ == EMILY_ELEMENTWISE ? in_order(inputs) : nullptr;
    int taken = take(inputs, out, like);
    if (taken < 0 && like)
      out.set_data(mx::allocator::malloc(like->data_size() * out.itemsize()), like->data_size(), like->strides(), like->flags());
    else if (taken < 0)
      out.set_data(mx::allocator::malloc(out.nbytes()));
    return Task(kernel_, inputs, out, taken, like != nullptr);
  }

  // Puts the output in the place of an input that nobody else needs; answers which, or -1.
  int take(const std::vector<mx::array>& inputs, mx::array& out, const mx::array* like) const {
    for (size_t i = 0; i < inputs.size(); i++) {
      bool fits = like ? !is_scalar(inputs[i]) : placement_ == EMILY_IN_FIRST && i == 0 && inputs[i].flags().row_contiguous;
      if (!fits || !can_take(inputs[i], out)) continue;
      out.copy_shared_buffer(inputs[i]);
      return static_cast<int>(i);
    }
    return -1;
  }

  std::shared_ptr<const Kernel> kernel_;
  emily_placement placement_;
};

} // namespace

size_t steps_of_kernel(const mx::array& array) {
  auto* kernel = dynamic_cast<const KernelPrimitive*>(&array.primitive());
  if (!kernel) return 0;
  size_t elements = array.size();
  for (const auto& input : array.inputs()) elements = std::max(elements, input.size());
  return kernel->steps() * elements;
}

void run_kernel(mx::array array) {
  static_cast<const KernelPrimitive&>(array.primitive()).run(array.inputs(), array);
}

} // namespace emily

extern "C" {

// Adds a kernel to the graph, which is dropped with it. With EMILY_ELEMENTWISE the inputs are broadcast to one shape.
int emily_add_kernel(mlx_array* result, emily_kernel kernel, const char* name, size_t length, const mlx_array* inputs, size_t count,
                     const int* shape, size_t rank, unsigned type, emily_placement placement, mlx_stream on) {
  return emily::guarded([&] {
    auto owned = std::make_shared<const emily::Kernel>(kernel, std::string(name, length));
    auto stream = *static_cast<mx::Stream*>(on.ctx);
    std::vector<mx::array> arrays;
    arrays.reserve(count);
    for (size_t i = 0; i < count; i++) arrays.push_back(*static_cast<mx::array*>(inputs[i].ctx));
    if (placement == EMILY_ELEMENTWISE && count > 1) arrays = mx::broadcast_arrays(arrays, stream);
    mx::Shape to = placement == EMILY_ELEMENTWISE ? arrays[0].shape() : mx::Shape(shape, shape + rank);
    auto primitive = std::make_shared<emily::KernelPrimitive>(stream, std::move(owned), placement);
    result->ctx = new mx::array(std::move(to), emily::TYPES[type], std::move(primitive), std::move(arrays));
  });
}
}
