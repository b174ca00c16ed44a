// MLX's allocator behind one that asks Rust whether there is memory, and raises what Rust says: MLX's own gives null
// where there is none, which nobody looks at.
#include <stdexcept>

#include "bridge.h"

using mx::allocator::Allocator;
using mx::allocator::Buffer;

// `src/runtime/allocator.rs`
extern "C" const char* emily_admit(size_t bytes);
extern "C" const char* emily_admitted(size_t bytes, const void* memory);

namespace {

class AskingAllocator final : public Allocator {
 public:
  explicit AskingAllocator(Allocator& own) : own_(own) {}

  Buffer malloc(size_t size) override {
    if (auto* refusal = emily_admit(size)) throw std::runtime_error(refusal);
    auto buffer = own_.malloc(size);
    if (auto* refusal = emily_admitted(size, buffer.ptr())) throw std::runtime_error(refusal);
    return buffer;
  }

  void free(Buffer buffer) override { own_.free(buffer); }
  size_t size(Buffer buffer) const override { return own_.size(buffer); }
  Buffer make_buffer(void* data, size_t size) override { return own_.make_buffer(data, size); }
  void release(Buffer buffer) override { own_.release(buffer); }

 private:
  Allocator& own_;
};

} // namespace

extern "C" {

// The allocator that MLX gets in the place of its own; that of a GPU looks at what it is answered, and is left alone.
Allocator* emily_asking_allocator(Allocator* own) {
  // Arrays outlive all that is destroyed at the end.
  return mx::is_available(mx::Device::gpu) ? own : new AskingAllocator(*own);
}

// A new array, whose elements the caller writes to `data`.
int emily_new_array(
    mx::array** result, void** data, const int* shape, size_t rank, unsigned type, size_t item, size_t bytes) {
  return emily::guarded([&] {
    mx::Dtype dtype(static_cast<mx::Dtype::Val>(type), item);
    *result = new mx::array(mx::allocator::malloc(bytes), mx::Shape(shape, shape + rank), dtype);
    *data = (*result)->data<void>();
  });
}
}
