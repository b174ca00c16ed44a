// Operations of MLX's that say what is untrue of their results' memory, with the truth told after them.
#include <cstdlib>
#include <typeinfo>

#include "bridge.h"

namespace emily {
namespace {

// What the strides say. MLX's LU factorisation counts the memory of its factors in bytes where it means elements, and
// its reshape takes what was column-major for column-major still; kernels write and read by that, without a look.
void tell_the_truth(mx::array& out) {
  auto steps = [&](size_t axis, int64_t& step) {
    bool fits = out.shape(axis) == 1 || out.strides(axis) == step;
    step *= out.shape(axis);
    return fits;
  };
  mx::array::Flags flags{true, true, true};
  int64_t row_step = 1, column_step = 1, distinct = 1, reach = 0;
  for (size_t axis = 0, last = out.ndim(); axis < out.ndim(); axis++) {
    flags.row_contiguous &= steps(--last, row_step);
    flags.col_contiguous &= steps(axis, column_step);
    if (out.strides(axis) > 0) distinct *= out.shape(axis);
    reach += std::abs(out.strides(axis)) * (out.shape(axis) - 1);
  }
  flags.contiguous = distinct == reach + 1;
  out.copy_shared_buffer(out, out.strides(), flags, reach + 1);
}

// An operation of MLX's and the truth.
class Truthful : public mx::Primitive {
 public:
  Truthful(mx::Stream stream, std::shared_ptr<mx::Primitive> inner) : Primitive(stream), inner_(std::move(inner)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    inner_->eval_cpu(inputs, outputs);
    for (auto& out : outputs) tell_the_truth(out);
  }

  void eval_gpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    inner_->eval_gpu(inputs, outputs);
    for (auto& out : outputs) tell_the_truth(out);
  }

  const char* name() const override { return inner_->name(); }

  bool is_equivalent(const Primitive& other) const override {
    const auto& inner = *static_cast<const Truthful&>(other).inner_;
    return typeid(*inner_) == typeid(inner) && inner_->is_equivalent(inner);
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    return inner_->output_shapes(inputs);
  }

 private:
  std::shared_ptr<mx::Primitive> inner_;
};

std::shared_ptr<Truthful> truthful(const mx::array& made) {
  return std::make_shared<Truthful>(made.primitive().stream(), made.primitive_ptr());
}

} // namespace
} // namespace emily

extern "C" {

// The one result of an operation that `made`, which is not computed, is the result of, followed by the truth.
int emily_truthful(mlx_array* result, mlx_array input) {
  return emily::guarded([&] {
    const auto& made = *static_cast<mx::array*>(input.ctx);
    result->ctx = new mx::array(made.shape(), made.dtype(), emily::truthful(made), made.inputs());
  });
}

// All results of an operation that `made`, which is not computed, is one of, followed by the truth.
int emily_all_truthful(mlx_vector_array results, mlx_array input) {
  return emily::guarded([&] {
    const auto& made = *static_cast<mx::array*>(input.ctx);
    std::vector<mx::Shape> shapes;
    std::vector<mx::Dtype> types;
    for (const auto& result : made.outputs()) {
      shapes.push_back(result.shape());
      types.push_back(result.dtype());
    }
    auto all = mx::array::make_arrays(std::move(shapes), types, emily::truthful(made), made.inputs());
    *static_cast<std::vector<mx::array>*>(results.ctx) = std::move(all);
  });
}
}
