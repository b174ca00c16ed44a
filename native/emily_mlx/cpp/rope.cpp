// Rotary embeddings of f32 as a node of MLX's graph, for a CPU.
#include "rotary.h"

#include "bridge.h"

namespace emily {
namespace {

Rotate own_rotate() {
  static const Rotate v3 = rotary_v3, v4 = rotary_v4;
  static const Rotate* own = for_processor(&v3, &v4);
  return own ? *own : nullptr;
}

class RopePrimitive : public mx::UnaryPrimitive {
 public:
  RopePrimitive(mx::Stream stream, const Rotary& rotary) : UnaryPrimitive(stream), rotary_(rotary) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    out.set_data(mx::allocator::malloc(out.nbytes()));
    const float* periods = inputs.size() > 2 ? inputs[2].data<float>() : nullptr;
    mx::cpu::get_command_encoder(stream()).dispatch(
        [rotary = rotary_, x = inputs[0].data<float>(), offsets = inputs[1].data<int32_t>(), periods,
         to = out.data<float>()] { own_rotate()(rotary, x, offsets, periods, to); });
  }

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::runtime_error("[rope] is a kernel for the CPU.");
  }

  const char* name() const override { return "rope"; }

  bool is_equivalent(const Primitive& other) const override {
    const auto& same = static_cast<const RopePrimitive&>(other).rotary_;
    return rotary_.dims == same.dims && rotary_.own_offsets == same.own_offsets &&
        rotary_.traditional == same.traditional && rotary_.scale == same.scale && rotary_.base == same.base;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override { return {inputs[0].shape()}; }

 private:
  Rotary rotary_;
};

} // namespace
} // namespace emily

extern "C" {

// Whether the processor has the kernel.
bool emily_has_rope() { return emily::own_rotate(); }

// Adds a rotary embedding to the graph: of f32 of three axes at least, by an s32 or one for each of the first
// axis, and by periods of f32 or, where their handle is null, by the base.
int emily_rope(mlx_array* result, mlx_array x, mlx_array offset, mlx_array periods, int dims, bool traditional, double base,
               double scale, mlx_stream on) {
  return emily::guarded([&] {
    auto stream = *static_cast<mx::Stream*>(on.ctx);
    std::vector<mx::array> inputs;
    for (auto handle : {x, offset, periods})
      if (handle.ctx) inputs.push_back(mx::contiguous(*static_cast<mx::array*>(handle.ctx), false, stream));
    auto shape = inputs[0].shape();
    int64_t columns = shape.back(), positions = shape[shape.size() - 2];
    int64_t heads = 1;
    for (size_t axis = 1; axis + 2 < shape.size(); axis++) heads *= shape[axis];
    emily::Rotary rotary{shape[0], heads, positions, columns, dims, inputs[1].size() > 1, traditional, scale, base};
    auto primitive = std::make_shared<emily::RopePrimitive>(stream, rotary);
    result->ctx = new mx::array(std::move(shape), mx::float32, std::move(primitive), std::move(inputs));
  });
}
}
