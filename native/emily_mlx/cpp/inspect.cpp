// MLX's arrays, its graph and its queue, as Rust looks at them.
#include <functional>

#include "bridge.h"
#include "mlx/primitives.h"
#include "mlx/scheduler.h"

#if defined(_GLIBCXX_RELEASE) && _GLIBCXX_RELEASE >= 13
// What is compiled calls this, and the libstdc++ of GCC 12, on which MLX runs, lacks it; `src/runtime/cxx.rs` has
// another.
template void std::string::_M_replace_cold(char*, size_type, const char*, const size_type, const size_type);
#endif

extern "C" {

// As in `src/runtime/inspect.rs`.
struct emily_node {
  const char* name;
  size_t id, bytes, inputs, siblings;
  int stream;
  bool scheduled, donatable;
};

using Held = std::vector<std::shared_ptr<mx::array::Data>>;

// What MLX hands to the thread of a CPU's stream; `src/runtime/tasks.rs` stands in its way.
using Task = std::function<void()>;

bool emily_memory_of(const mx::array* x, bool on_device, emily_memory* memory) {
  if (!x->data_shared_ptr() || (on_device && !x->buffer().ptr())) return false;
  auto [contiguous, row_contiguous, col_contiguous] = x->flags();
  // A buffer of CUDA's begins with the address of its memory there.
  auto* data = on_device ? *static_cast<char**>(x->buffer().ptr()) + x->offset() : const_cast<char*>(x->data<char>());
  *memory = emily_memory(
      data, x->shape().data(), x->strides().data(), x->ndim(), x->itemsize(), x->buffer_size(), x->data_size(),
      x->offset(), contiguous, row_contiguous, col_contiguous, x->is_donatable());
  return true;
}

emily_node emily_node_of(const mx::array* x) {
  bool scheduled = x->status() != mx::array::Status::unscheduled;
  int stream = -1;
  if (scheduled && x->event().valid()) stream = x->event().stream().index;
  if (!scheduled && x->has_primitive()) stream = x->primitive().stream().index;
  const char* name = x->has_primitive() ? x->primitive().name() : nullptr;
  return {name, x->id(), x->nbytes(), x->inputs().size(), x->siblings().size(), stream, scheduled, x->is_donatable()};
}

// An input, or behind those a sibling, as long as the array holds it.
const mx::array* emily_neighbour(const mx::array* x, size_t at) {
  size_t inputs = x->inputs().size();
  return at < inputs ? &x->inputs()[at] : &x->siblings()[at - inputs];
}

size_t emily_queued() { return mx::scheduler::n_active_tasks(); }

// Has the stream's thread call `f(data)` behind what is scheduled.
int emily_enqueue(const mx::Stream* stream, void (*f)(void*), void* data) {
  return emily::guarded([=] { mx::scheduler::enqueue(*stream, [f, data] { f(data); }); });
}

// Another owner of memory.
Held* emily_hold(const Held* held) { return new Held(*held); }

void emily_drop_held(Held* held) { delete held; }

// The name of what is called, as the compiler writes types.
const char* emily_task_name(const Task* task) { return task->target_type().name(); }

int emily_copy_task(Task** copy, const Task* task) {
  return emily::guarded([=] { *copy = new Task(*task); });
}

// Calls a task, or a copy of one that a call changes.
int emily_run_task(const Task* task, bool stays) {
  return emily::guarded([=] { stays ? (*task)() : Task (*task)(); });
}

void emily_drop_task(Task* task) { delete task; }
}
