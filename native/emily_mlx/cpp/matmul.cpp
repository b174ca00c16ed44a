// Products of small matrices of f32 as a node of MLX's graph, for a CPU.
#include "products.h"

#include <memory>

#include "bridge.h"
#include "walk.h"

namespace emily {
namespace {

Product own_product() {
  static const Product* own = [] {
    static const Product v3 = products_v3, v4 = products_v4;
    return for_processor(&v3, &v4);
  }();
  return own ? *own : nullptr;
}

Matrix matrix(const mx::array& array) {
  return {array.data<float>(), array.strides(-2), array.strides(-1)};
}

class MatmulPrimitive : public mx::UnaryPrimitive {
 public:
  explicit MatmulPrimitive(mx::Stream stream) : UnaryPrimitive(stream) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    out.set_data(mx::allocator::malloc(out.nbytes()));
    const auto& a = inputs[0];
    const auto& b = inputs[1];
    std::vector<Loop> batch;
    for (int axis = 0; axis < static_cast<int>(a.ndim()) - 2; axis++)
      batch.push_back({a.shape(axis), a.strides(axis), b.strides(axis)});
    Sizes sizes{a.shape(-2), a.shape(-1), b.shape(-1)};
    mx::cpu::get_command_encoder(stream()).dispatch(
        [left = matrix(a), right = matrix(b), to = out.data<float>(), sizes, batch = std::move(batch)]() mutable {
          std::unique_ptr<float[]> scratch(new float[static_cast<size_t>(sizes.inner * sizes.columns)]);
          each(batch, [&, product = own_product()](int64_t at_left, int64_t at_right) {
            product({left.data + at_left, left.row, left.column}, {right.data + at_right, right.row, right.column}, to, sizes,
                scratch.get());
            to += sizes.rows * sizes.columns;
          });
        });
  }

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override { throw std::runtime_error("[matmul] is a kernel for the CPU."); }

  const char* name() const override { return "matmul"; }

  bool is_equivalent(const Primitive&) const override { return true; }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    auto shape = inputs[0].shape();
    shape.back() = inputs[1].shape(-1);
    return {shape};
  }
};

} // namespace
} // namespace emily

extern "C" {

// Whether the processor has the kernel.
bool emily_has_matmul() { return emily::own_product(); }

// Adds a product of two arrays of f32, matrices of the same batch, to the graph.
int emily_matmul(mlx_array* result, mlx_array a, mlx_array b, mlx_stream on) {
  return emily::guarded([&] {
    auto stream = *static_cast<mx::Stream*>(on.ctx);
    std::vector<mx::array> inputs{*static_cast<mx::array*>(a.ctx), *static_cast<mx::array*>(b.ctx)};
    auto primitive = std::make_shared<emily::MatmulPrimitive>(stream);
    auto shape = primitive->output_shapes(inputs)[0];
    result->ctx = new mx::array(std::move(shape), mx::float32, std::move(primitive), std::move(inputs));
  });
}
}
