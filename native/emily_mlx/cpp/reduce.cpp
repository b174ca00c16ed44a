// Reductions of f32 over any axes as a node of MLX's graph, for a CPU.
#include "reduce.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "bridge.h"
#include "walk.h"

namespace emily {
namespace {

// How many totals are taken at a time: they stay in a near cache.
constexpr int64_t BLOCK = 2048;

// Appends an axis to those around it, as one with the last where they lie as one.
void append(std::vector<Loop>& loops, Loop loop) {
  if (!loops.empty()) {
    Loop& last = loops.back();
    if (last.first == loop.size * loop.first && last.second == loop.size * loop.second) {
      last = {last.size * loop.size, loop.first, loop.second};
      return;
    }
  }
  loops.push_back(loop);
}

// The nearest elements, which the kernel takes.
Loop innermost(std::vector<Loop>& loops) {
  if (loops.empty()) return {1, 0, 0};
  Loop loop = loops.back();
  loops.pop_back();
  return loop;
}

class ReducePrimitive : public mx::UnaryPrimitive {
 public:
  ReducePrimitive(mx::Stream stream, const Reduction* reduction, std::vector<int> axes, bool keep)
      : UnaryPrimitive(stream), reduction_(reduction), axes_(std::move(axes)), keep_(keep) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    out.set_data(mx::allocator::malloc(out.nbytes()));
    std::vector<Loop> kept, reduced;
    loops(inputs[0], kept, reduced);
    mx::cpu::get_command_encoder(stream()).dispatch(
        [reduction = *reduction_, kept = std::move(kept), reduced = std::move(reduced), from = inputs[0].data<float>(),
         to = out.data<float>()]() mutable { reduce(reduction, std::move(kept), std::move(reduced), from, to); });
  }

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override { throw std::runtime_error("[reduce] is a kernel for the CPU."); }

  const char* name() const override { return reduction_->name; }

  bool is_equivalent(const Primitive& other) const override {
    const auto& same = static_cast<const ReducePrimitive&>(other);
    return reduction_ == same.reduction_ && axes_ == same.axes_ && keep_ == same.keep_;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override {
    mx::Shape shape;
    for (int axis = 0; axis < static_cast<int>(inputs[0].ndim()); axis++) {
      if (!is_reduced(axis)) shape.push_back(inputs[0].shape(axis));
      else if (keep_) shape.push_back(1);
    }
    return {shape};
  }

 private:
  bool is_reduced(int axis) const { return std::find(axes_.begin(), axes_.end(), axis) != axes_.end(); }

  // The axes in the order in which the input lies in memory. The output is row-major.
  void loops(const mx::array& x, std::vector<Loop>& kept, std::vector<Loop>& reduced) const {
    struct Place {
      Loop loop;
      bool is_reduced;
    };
    std::vector<Place> places;
    int64_t output = 1;
    for (int axis = static_cast<int>(x.ndim()) - 1; axis >= 0; axis--) {
      bool gone = is_reduced(axis);
      if (x.shape(axis) == 1) continue;
      places.push_back({{x.shape(axis), x.strides(axis), gone ? 0 : output}, gone});
      if (!gone) output *= x.shape(axis);
    }
    std::reverse(places.begin(), places.end());
    // What is the same all along an axis is walked there last.
    auto distance = [](const Place& place) {
      return place.loop.first == 0 ? INT64_MAX : std::abs(place.loop.first);
    };
    std::stable_sort(places.begin(), places.end(),
                     [&](const Place& a, const Place& b) { return distance(a) > distance(b); });
    for (const auto& place : places) append(place.is_reduced ? reduced : kept, place.loop);
  }

  static void reduce(const Reduction& reduction, std::vector<Loop> kept, std::vector<Loop> reduced, const float* from,
                     float* to) {
    Loop near = innermost(kept);
    Loop taken = innermost(reduced);
    alignas(64) double totals[BLOCK];
    each(kept, [&](int64_t input, int64_t output) {
      for (int64_t start = 0; start < near.size; start += BLOCK) {
        int64_t count = std::min(BLOCK, near.size - start);
        const float* x = from + input + start * near.first;
        float* out = to + output + start * near.second;
        bool first = true;
        each(reduced, [&](int64_t at, int64_t) {
          reduction.take(x + at, totals, {count, near.first}, {taken.size, taken.first}, first);
          first = false;
        });
        if (near.second == 1) {
          reduction.round(totals, out, count);
        } else {
          for (int64_t i = 0; i < count; i++) out[i * near.second] = static_cast<float>(totals[i]);
        }
      }
    });
  }

  const Reduction* reduction_;
  std::vector<int> axes_;
  bool keep_;
};

} // namespace
} // namespace emily

extern "C" {

// A reduction by name, or null where there is none or the processor is too old for it.
const void* emily_find_reduction(const char* name) {
  static const auto* own = emily::for_processor(emily::totals_v3, emily::totals_v4);
  for (const auto* at = own; at && at->name; at++)
    if (std::strcmp(at->name, name) == 0) return at;
  return nullptr;
}

// Adds a reduction of an array of f32 to the graph. The axes are sound; kept ones have one element.
int emily_reduce(mlx_array* result, const void* kernel, mlx_array input, const int* axes, size_t count, bool keep,
                 mlx_stream on) {
  return emily::guarded([&] {
    auto stream = *static_cast<mx::Stream*>(on.ctx);
    std::vector<mx::array> inputs{*static_cast<mx::array*>(input.ctx)};
    auto primitive = std::make_shared<emily::ReducePrimitive>(stream, static_cast<const emily::Reduction*>(kernel),
                                                              std::vector<int>(axes, axes + count), keep);
    auto shape = primitive->output_shapes(inputs)[0];
    result->ctx = new mx::array(std::move(shape), mx::float32, std::move(primitive), std::move(inputs));
  });
}
}
