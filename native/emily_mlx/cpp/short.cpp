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

bool has_room() {
  return mx::scheduler::n_active_tasks() == 0 && mx::get_active_memory() + MOST_BYTES < mx::get_memory_limit();
}

} // namespace

extern "C" {

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
