// Kernels of Emily's own as nodes of MLX's graph, for a CPU. The functions at the end are what Rust calls.
#include "kernels.h"

#include <algorithm>
#include <cstring>

#include "bridge.h"

namespace emily {
namespace {

constexpr size_t MOST_INPUTS = 3;

// By the numbers that mlx-c gives them.
const mx::Dtype TYPES[] = {mx::bool_, mx::uint8, mx::uint16, mx::uint32, mx::uint64, mx::int8, mx::int16,
                           mx::int32, mx::int64, mx::float16, mx::float32, mx::float64, mx::bfloat16, mx::complex64};

// An input as it lies in memory.
struct Source {
  const char* data;
  size_t width;
  mx::Strides strides;
};

// Walks an input in row-major order and copies its elements into a row.
class Gather {
 public:
  Gather(const Source& source, const mx::Shape& shape)
      : source_(source), shape_(shape), at_(shape.size(), 0), element_(source.data) {}

  void copy(char* to, size_t n) {
    switch (source_.width) {
      case 1: return copy_as<uint8_t>(to, n);
      case 2: return copy_as<uint16_t>(to, n);
      case 4: return copy_as<uint32_t>(to, n);
      default: return copy_as<uint64_t>(to, n);
    }
  }

 private:
  template <class T>
  void copy_as(char* to, size_t n) {
    T* out = reinterpret_cast<T*>(to);
    int last = static_cast<int>(shape_.size()) - 1;
    int64_t stride = source_.strides[last];
    while (n > 0) {
      size_t run = std::min(n, static_cast<size_t>(shape_[last] - at_[last]));
      const T* in = reinterpret_cast<const T*>(element_);
      if (stride == 1) {
        std::copy_n(in, run, out);
      } else {
        for (size_t i = 0; i < run; i++) out[i] = in[static_cast<int64_t>(i) * stride];
      }
      out += run;
      n -= run;
      advance(last, run);
    }
  }

  void advance(int axis, size_t by) {
    int64_t width = static_cast<int64_t>(source_.width);
    at_[axis] += static_cast<int>(by);
    element_ += static_cast<int64_t>(by) * source_.strides[axis] * width;
    while (axis > 0 && at_[axis] == shape_[axis]) {
      element_ -= static_cast<int64_t>(shape_[axis]) * source_.strides[axis] * width;
      at_[axis] = 0;
      axis--;
      at_[axis] += 1;
      element_ += source_.strides[axis] * width;
    }
  }

  const Source& source_;
  const mx::Shape& shape_;
  std::vector<int> at_;
  const char* element_;
};

Source source(const mx::array& array) {
  return {array.data<char>(), array.itemsize(), array.strides()};
}

// As in MLX: memory that is much larger than the output stays free for others.
bool can_take(const mx::array& input, const mx::array& out) {
  constexpr size_t spare = 16384;
  return input.is_donatable() && input.itemsize() == out.itemsize() && input.buffer_size() <= out.nbytes() + spare;
}

// The last axis as a whole. Inputs are row-major; after the first they are vectors.
class RowsPrimitive : public mx::UnaryPrimitive {
 public:
  RowsPrimitive(mx::Stream stream, const char* name, Rows function, std::array<int, MOST_INPUTS> at, double option)
      : UnaryPrimitive(stream), name_(name), function_(function), at_(at), option_(option) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    const auto& x = inputs[0];
    if (can_take(x, out)) {
      out.copy_shared_buffer(x);
    } else {
      out.set_data(mx::allocator::malloc(out.nbytes()));
    }
    std::array<const float*, MOST_INPUTS> data{};
    for (size_t i = 0; i < MOST_INPUTS; i++)
      if (at_[i] >= 0) data[i] = inputs[at_[i]].data<float>();
    size_t columns = x.shape(-1);
    size_t rows = x.size() / columns;
    mx::cpu::get_command_encoder(stream()).dispatch(
        [function = function_, data, to = out.data<float>(), rows, columns, option = option_] {
          function(data.data(), to, rows, columns, option);
        });
  }

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::runtime_error(std::string("[") + name_ + "] is a kernel for the CPU.");
  }

  const char* name() const override { return name_; }

  bool is_equivalent(const Primitive& other) const override {
    const auto& same = static_cast<const RowsPrimitive&>(other);
    return function_ == same.function_ && at_ == same.at_ && option_ == same.option_;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override { return {inputs[0].shape()}; }

 private:
  const char* name_;
  Rows function_;
  std::array<int, MOST_INPUTS> at_;
  double option_;
};

// The trailing axes as one row, from which comes one element.
class FoldPrimitive : public mx::UnaryPrimitive {
 public:
  FoldPrimitive(mx::Stream stream, const char* name, Fold function, mx::Shape shape)
      : UnaryPrimitive(stream), name_(name), function_(function), shape_(std::move(shape)) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    const auto& x = inputs[0];
    out.set_data(mx::allocator::malloc(out.nbytes()));
    size_t rows = out.size();
    mx::cpu::get_command_encoder(stream()).dispatch(
        [function = function_, data = x.data<char>(), to = out.data<char>(), rows, columns = x.size() / rows] {
          function(data, to, rows, columns);
        });
  }

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::runtime_error(std::string("[") + name_ + "] is a kernel for the CPU.");
  }

  const char* name() const override { return name_; }

  bool is_equivalent(const Primitive& other) const override {
    const auto& same = static_cast<const FoldPrimitive&>(other);
    return function_ == same.function_ && shape_ == same.shape_;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>&) override { return {shape_}; }

 private:
  const char* name_;
  Fold function_;
  mx::Shape shape_;
};

// Rows by their numbers: of the first input along `axis`, before which all sizes are 1, or updates of it by the third
// input. All inputs but the first of two are row-major.
class IndexedPrimitive : public mx::UnaryPrimitive {
 public:
  IndexedPrimitive(mx::Stream stream, const char* name, Indexed function, mx::Shape shape, size_t axis)
      : UnaryPrimitive(stream), name_(name), function_(function), shape_(std::move(shape)), axis_(axis) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    const auto& x = inputs[0];
    bool updated = inputs.size() > 2;
    if (updated && can_take(x, out)) {
      out.copy_shared_buffer(x);
    } else {
      out.set_data(mx::allocator::malloc(out.nbytes()));
    }
    const void* updates = updated ? inputs[2].data<char>() : nullptr;
    auto& encoder = mx::cpu::get_command_encoder(stream());
    const char* from = x.data<char>();
    auto [table, fits] = this->table(x);
    if (!fits) {
      mx::array copy(x.shape(), x.dtype(), nullptr, {});
      copy.set_data(mx::allocator::malloc(x.nbytes()));
      encoder.add_temporary(copy);
      encoder.dispatch([from = source(x), shape = x.shape(), to = copy.data<char>(), n = x.size()] {
        Gather(from, shape).copy(to, n);
      });
      from = copy.data<char>();
    }
    encoder.dispatch([function = function_, from, indices = inputs[1].data<char>(), updates, to = out.data<char>(),
                      count = inputs[1].size(), table = table] { function(from, indices, updates, to, count, table); });
  }

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::runtime_error(std::string("[") + name_ + "] is a kernel for the CPU.");
  }

  const char* name() const override { return name_; }

  bool is_equivalent(const Primitive& other) const override {
    const auto& same = static_cast<const IndexedPrimitive&>(other);
    return function_ == same.function_ && shape_ == same.shape_ && axis_ == same.axis_;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>&) override { return {shape_}; }

 private:
  // The rows as they lie in memory, or as they will where their elements have no common step and are copied first.
  std::pair<Table, bool> table(const mx::array& x) const {
    size_t rows = x.shape(axis_), columns = 1;
    int64_t step = 1;
    bool fits = true;
    for (size_t axis = x.ndim() - 1; axis > axis_; axis--) {
      if (x.shape(axis) == 1) continue;
      if (columns == 1) step = x.strides(axis);
      fits &= x.strides(axis) == step * static_cast<int64_t>(columns);
      columns *= x.shape(axis);
    }
    if (!fits) return {{rows, columns, static_cast<int64_t>(columns), 1}, false};
    return {{rows, columns, x.strides(axis_), step}, true};
  }

  const char* name_;
  Indexed function_;
  mx::Shape shape_;
  size_t axis_;
};

// One element of each row for each of the row's own indices. Inputs are row-major.
class AlongPrimitive : public mx::UnaryPrimitive {
 public:
  AlongPrimitive(mx::Stream stream, const char* name, Indexed function)
      : UnaryPrimitive(stream), name_(name), function_(function) {}

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    const auto& x = inputs[0];
    const auto& indices = inputs[1];
    out.set_data(mx::allocator::malloc(out.nbytes()));
    size_t columns = x.shape(-1), count = indices.shape(-1);
    mx::cpu::get_command_encoder(stream()).dispatch(
        [function = function_, from = x.data<char>(), at = indices.data<char>(), to = out.data<char>(),
         rows = x.size() / columns, columns, count, width = x.itemsize(), index_width = indices.itemsize()] {
          for (size_t row = 0; row < rows; row++)
            function(from + row * columns * width, at + row * count * index_width, nullptr, to + row * count * width,
                     count, {columns, 1, 1, 1});
        });
  }

  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::runtime_error(std::string("[") + name_ + "] is a kernel for the CPU.");
  }

  const char* name() const override { return name_; }

  bool is_equivalent(const Primitive& other) const override {
    return function_ == static_cast<const AlongPrimitive&>(other).function_;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>& inputs) override { return {inputs[1].shape()}; }

 private:
  const char* name_;
  Indexed function_;
};

// The kernels of each file for this processor, or none.
std::vector<const Kernels*> kernels() {
  static const std::vector<const Kernels*> v3 = {&vector_v3, &fold_v3, &index_v3};
  static const std::vector<const Kernels*> v4 = {&vector_v4, &fold_v4, &index_v4};
  const auto* own = for_processor(&v3, &v4);
  return own ? *own : std::vector<const Kernels*>();
}

template <class F>
const void* find(const F* Kernels::* list, const char* name) {
  static const std::vector<const Kernels*> own = kernels();
  for (const auto* file : own)
    for (const F* at = file->*list; at && at->name; at++)
      if (std::strcmp(at->name, name) == 0) return at;
  return nullptr;
}

} // namespace
} // namespace emily

extern "C" {

// A kernel by name, or null where there is none or the processor is too old for it.
const void* emily_find_map(const char* name) { return emily::find(&emily::Kernels::maps, name); }

const void* emily_find_rows(const char* name) { return emily::find(&emily::Kernels::rows, name); }

const void* emily_find_fold(const char* name) { return emily::find(&emily::Kernels::folds, name); }

const void* emily_find_indexed(const char* name) { return emily::find(&emily::Kernels::indexed, name); }

// Adds a kernel over the last axis; inputs of f32 without a handle are left out.
int emily_rows(mlx_array* result, const void* kernel, const mlx_array* inputs, size_t count, double option, mlx_stream on) {
  return emily::guarded([&] {
    const auto* rows = static_cast<const emily::NamedRows*>(kernel);
    auto stream = *static_cast<mx::Stream*>(on.ctx);
    std::vector<mx::array> arrays;
    std::array<int, emily::MOST_INPUTS> at{-1, -1, -1};
    for (size_t i = 0; i < count; i++) {
      if (!inputs[i].ctx) continue;
      at[i] = static_cast<int>(arrays.size());
      arrays.push_back(mx::contiguous(*static_cast<mx::array*>(inputs[i].ctx), false, stream));
    }
    auto primitive = std::make_shared<emily::RowsPrimitive>(stream, rows->name, rows->function, at, option);
    auto shape = arrays[0].shape();
    result->ctx = new mx::array(std::move(shape), mx::float32, std::move(primitive), std::move(arrays));
  });
}

// Adds a kernel to the graph that makes one element of all axes from `kept` on, which are left out, or have
// the size 1.
int emily_fold(mlx_array* result, const void* kernel, mlx_array input, size_t kept, bool keep_axes, unsigned type,
               mlx_stream on) {
  return emily::guarded([&] {
    const auto* fold = static_cast<const emily::NamedFold*>(kernel);
    auto stream = *static_cast<mx::Stream*>(on.ctx);
    auto x = mx::contiguous(*static_cast<mx::array*>(input.ctx), false, stream);
    mx::Shape shape(x.shape().begin(), x.shape().begin() + kept);
    if (keep_axes) shape.resize(x.ndim(), 1);
    auto primitive = std::make_shared<emily::FoldPrimitive>(stream, fold->name, fold->function, shape);
    result->ctx = new mx::array(std::move(shape), emily::TYPES[type], std::move(primitive), {std::move(x)});
  });
}

// Adds a kernel to the graph for an array whose rows are along `axis`, indices and, but for what takes rows, updates.
int emily_indexed(mlx_array* result, const void* kernel, const mlx_array* inputs, size_t count, size_t axis,
                  const int* shape, size_t rank, mlx_stream on) {
  return emily::guarded([&] {
    const auto* indexed = static_cast<const emily::NamedIndexed*>(kernel);
    auto stream = *static_cast<mx::Stream*>(on.ctx);
    std::vector<mx::array> arrays;
    for (size_t i = 0; i < count; i++) {
      const auto& array = *static_cast<mx::array*>(inputs[i].ctx);
      arrays.push_back(i == 0 && count == 2 ? array : mx::contiguous(array, false, stream));
    }
    mx::Shape to(shape, shape + rank);
    auto primitive = std::make_shared<emily::IndexedPrimitive>(stream, indexed->name, indexed->function, to, axis);
    auto type = arrays[0].dtype();
    result->ctx = new mx::array(std::move(to), type, std::move(primitive), std::move(arrays));
  });
}

// Adds a kernel to the graph that takes elements along the last axis; the sizes of the other axes are the same.
int emily_along(mlx_array* result, const void* kernel, mlx_array input, mlx_array at, mlx_stream on) {
  return emily::guarded([&] {
    const auto* indexed = static_cast<const emily::NamedIndexed*>(kernel);
    auto stream = *static_cast<mx::Stream*>(on.ctx);
    auto x = mx::contiguous(*static_cast<mx::array*>(input.ctx), false, stream);
    auto indices = mx::contiguous(*static_cast<mx::array*>(at.ctx), false, stream);
    auto primitive = std::make_shared<emily::AlongPrimitive>(stream, indexed->name, indexed->function);
    auto shape = indices.shape();
    auto type = x.dtype();
    result->ctx = new mx::array(std::move(shape), type, std::move(primitive), {std::move(x), std::move(indices)});
  });
}
}
