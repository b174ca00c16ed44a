// Short work scheduled where it is asked for, and its end told by the stream's own thread: two threads are
// woken instead of four.
#include <cstring>
#include <unordered_set>

#include "bridge.h"
#include "mlx/memory.h"
#include "mlx/scheduler.h"

namespace {

// MLX lets whoever schedules wait once about a hundred tasks are queued; each operation queues one for each
// input that has to be copied first, itself, and the freeing of its inputs.
constexpr size_t MOST_TASKS = 60;
// More takes longer than the wakes that are spared, and its memory might not be there.
constexpr size_t MOST_BYTES = 1 << 20;

// Whether all that the arrays need is on this stream and so little that scheduling it neither takes long nor
// waits.
class Shortness {
 public:
  explicit Shortness(const mx::Stream& stream) : stream_(stream) {}

  bool holds(const mx::array& array) {
    if (array.status() != mx::array::Status::unscheduled) {
      auto& event = array.event();
      return !event.valid() || event.stream() == stream_ || array.is_available();
    }
    if (!seen_.insert(array.id()).second) return true;
    if (!array.has_primitive() || array.primitive().stream() != stream_) return false;
    // This compiles when it is scheduled.
    if (std::strncmp(array.primitive().name(), "Compiled", 8) == 0) return false;
    tasks_ += 2 + array.inputs().size();
    bytes_ += array.nbytes();
    if (tasks_ > MOST_TASKS || bytes_ > MOST_BYTES) return false;
    for (const auto& input : array.inputs())
      if (!holds(input)) return false;
    for (const auto& sibling : array.siblings()) bytes_ += sibling.nbytes();
    return true;
  }

 private:
  const mx::Stream& stream_;
  std::unordered_set<std::uintptr_t> seen_;
  size_t tasks_ = 0;
  size_t bytes_ = 0;
};

// About as long takes it to wake the stream's thread, 10 us: steps of an element each, and those beside a kernel's.
constexpr size_t MOST_STEPS = 2048;
constexpr size_t STEPS_A_NODE = 64;

// What an array needs, in the order in which it is computed, where whoever asks may compute it: kernels of few steps,
// and views of what is computed.
class Here {
 public:
  explicit Here(const mx::Stream& stream) : stream_(stream) {}

  bool holds(const mx::array& array) {
    if (array.status() != mx::array::Status::unscheduled) return array.is_available();
    if (!seen_.insert(array.id()).second) return true;
    if (!array.has_primitive() || array.primitive().stream() != stream_ || !array.siblings().empty()) return false;
    size_t steps = emily::steps_of_kernel(array);
    if (steps == 0 && !is_view(array)) return false;
    steps_ += STEPS_A_NODE + steps;
    if (steps_ > MOST_STEPS) return false;
    for (const auto& input : array.inputs())
      if (!holds(input)) return false;
    order_.push_back(array);
    return true;
  }

  void compute() {
    for (auto& array : order_) {
      if (is_view(array)) {
        std::vector<mx::array> outputs{array};
        array.primitive().eval_cpu(array.inputs(), outputs);
      } else {
        emily::run_kernel(array);
      }
      array.set_status(mx::array::Status::available);
      array.detach();
    }
  }

 private:
  // Of these MLX's own share their input's memory, and queue nothing.
  static bool is_view(const mx::array& array) {
    const char* name = array.primitive().name();
    for (const char* view : {"Broadcast", "ExpandDims", "Squeeze", "Transpose"})
      if (std::strcmp(name, view) == 0) return true;
    return false;
  }

  const mx::Stream& stream_;
  std::unordered_set<std::uintptr_t> seen_;
  std::vector<mx::array> order_;
  size_t steps_ = 0;
};

bool has_room() {
  return mx::scheduler::n_active_tasks() == 0 && mx::get_active_memory() + MOST_BYTES < mx::get_memory_limit();
}

} // namespace

extern "C" {

// Computes the arrays on the calling thread, which keeps others from scheduling, if that takes no longer than to wake
// another.
int emily_compute_here(const mlx_array* inputs, size_t count, mlx_stream on, bool* computed) {
  *computed = false;
  return emily::guarded([&] {
    auto stream = *static_cast<mx::Stream*>(on.ctx);
    if (stream.device != mx::Device::cpu) return;
    Here here(stream);
    for (size_t i = 0; i < count; i++)
      if (!here.holds(*static_cast<mx::array*>(inputs[i].ctx))) return;
    here.compute();
    *computed = true;
  });
}

// Schedules the arrays if that is short work; `done(data)` is then called by the stream's thread once they are
// computed. The caller keeps other threads from scheduling meanwhile.
int emily_schedule_short(const mlx_array* inputs, size_t count, mlx_stream on, void (*done)(void*), void* data, bool* scheduled) {
  *scheduled = false;
  return emily::guarded([&] {
    auto stream = *static_cast<mx::Stream*>(on.ctx);
    Shortness is_short(stream);
    // A GPU has no thread that could tell.
    if (stream.device != mx::Device::cpu || !has_room()) return;
    std::vector<mx::array> arrays;
    for (size_t i = 0; i < count; i++) {
      arrays.push_back(*static_cast<mx::array*>(inputs[i].ctx));
      if (!is_short.holds(arrays.back())) return;
    }
    mx::async_eval(std::move(arrays));
    mx::scheduler::enqueue(stream, [done, data] { done(data); });
    *scheduled = true;
  });
}
}
