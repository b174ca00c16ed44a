// MLX's allocator behind one that asks whether there is memory, and raises where there is none: MLX's own gives null
// then, which nobody looks at. MLX finds it through the function that `src/allocator.rs` puts in the place of MLX's.
#include "mlx/allocator.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <stdexcept>
#include <string>

#include "bridge.h"

extern "C" {
bool emily_admit(size_t bytes, char* refusal, size_t capacity);
void emily_admitted(size_t bytes);
}

namespace {

using mx::allocator::Allocator;
using mx::allocator::Buffer;

// From this size on the C library maps memory for each array, and gives it back at once.
constexpr size_t MAPPED = 32 << 20;

class AskingAllocator final : public Allocator {
 public:
  explicit AskingAllocator(Allocator& own) : own_(own) {}

  Buffer malloc(size_t size) override {
    char refusal[256];
    if (!emily_admit(size, refusal, sizeof(refusal))) throw std::runtime_error(std::string("[malloc] ") + refusal);
    auto buffer = can_be_had(size) ? own_.malloc(size) : Buffer(nullptr);
    emily_admitted(size);
    if (!buffer.ptr()) throw std::runtime_error("[malloc] the system has no memory for " + std::to_string(size) + " bytes");
    return buffer;
  }

  void free(Buffer buffer) override { own_.free(buffer); }
  size_t size(Buffer buffer) const override { return own_.size(buffer); }
  Buffer make_buffer(void* data, size_t size) override { return own_.make_buffer(data, size); }
  void release(Buffer buffer) override { own_.release(buffer); }

 private:
  // MLX counts what it did not get as active for ever, so what is large is tried first.
  static bool can_be_had(size_t size) {
    if (size < MAPPED) return true;
    void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return data != MAP_FAILED && munmap(data, size) == 0;
  }

  Allocator& own_;
};

} // namespace

extern "C" {

// The allocator that MLX gets. That of a GPU, which looks at what it is answered, is left alone.
Allocator* emily_allocator() {
  static Allocator* allocator = [] {
    using Find = Allocator& (*)();
    auto& own = reinterpret_cast<Find>(dlsym(RTLD_NEXT, "_ZN3mlx4core9allocator9allocatorEv"))();
    if (mx::is_available(mx::Device::gpu)) return &own;
    // Arrays outlive all that is destroyed at the end.
    return static_cast<Allocator*>(new AskingAllocator(own));
  }();
  return allocator;
}

// A new array of the type of `like`, whose elements the caller writes to `data`.
int emily_new_array(mlx_array* result, void** data, mlx_array like, const int* shape, size_t rank) {
  return emily::guarded([&] {
    auto type = static_cast<mx::array*>(like.ctx)->dtype();
    mx::Shape sizes(shape, shape + rank);
    size_t bytes = type.size();
    for (auto size : sizes) bytes *= size;
    auto array = std::make_unique<mx::array>(mx::allocator::malloc(bytes), std::move(sizes), type);
    *data = array->data<void>();
    result->ctx = array.release();
  });
}
}
