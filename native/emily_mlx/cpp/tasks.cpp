// Work that MLX queues on a CPU, kept so that it can be run again without MLX: MLX hands functions to the thread of a
// stream, each of which knows the memory that it reads and writes. A recording keeps copies of them.
#include <dlfcn.h>

#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <string_view>
#include <vector>

#include "bridge.h"
#include "mlx/scheduler.h"

namespace {

using Task = std::function<void()>;
using Scheduler = mx::scheduler::Scheduler;

class Tasks {
 public:
  void take(const Task& task) noexcept {
    try {
      std::string_view name = task.target_type().name();
      auto holds = [&](std::string_view part) { return name.find(part) != name.npos; };
      // What an encoder makes of an operation is bound; all else counts what is queued, or says that it is done.
      if (!name.starts_with("St5_Bind")) return;
      // It does nothing; its buffers are to stay.
      if (holds("cpu4evalERNS")) {
        held_.push_back(task);
        return;
      }
      tasks_.push_back({task, holds("5emily4Node")});
    } catch (const std::exception&) {
      failed_ = true;
    }
  }

  // `bytes` that are copied at the end of each turn.
  void add_copy(char* to, const char* from, size_t bytes) { copies_.push_back({to, from, bytes}); }

  // Waits for what MLX runs, which is a turn without its copies.
  void finish(mx::Stream stream) {
    auto done = std::make_shared<std::promise<void>>();
    auto ended = done->get_future();
    mx::scheduler::scheduler().enqueue(stream, [done = std::move(done)] { done->set_value(); });
    ended.get();
    mx::scheduler::check_error(stream);
    if (failed_) throw std::runtime_error("[tasks] no memory for a recording.");
    copy();
  }

  void run() const {
    for (const auto& [task, stays] : tasks_) {
      // MLX's may change what they hold.
      stays ? task() : Task(task)();
    }
    copy();
  }

 private:
  struct Copy {
    char* to;
    const char* from;
    size_t bytes;
  };

  void copy() const {
    for (const auto& copy : copies_) std::memcpy(copy.to, copy.from, copy.bytes);
  }

  // With whether it is the same after it was run.
  std::vector<std::pair<Task, bool>> tasks_;
  std::vector<Task> held_;
  std::vector<Copy> copies_;
  bool failed_ = false;
};

// Whose work the thread records.
thread_local Tasks* recording = nullptr;

} // namespace

extern "C" {

// MLX queues a task. `src/runtime/tasks.rs` stands in MLX's way to its own.
void emily_queue_task(Scheduler* scheduler, mx::Stream stream, Task* task) {
  static const auto own = reinterpret_cast<void (*)(Scheduler*, mx::Stream, Task*)>(
      dlsym(RTLD_NEXT, "_ZN3mlx4core9scheduler9Scheduler7enqueueENS0_6StreamESt8functionIFvvEE"));
  if (recording) recording->take(*task);
  // It takes a function by its address, as what is copied by code of its own is passed, and the caller ends it.
  own(scheduler, stream, task);
}

Tasks* emily_tasks() { return new Tasks; }

// What the thread has MLX schedule is kept from here on; null ends that.
void emily_keep_tasks(Tasks* to) { recording = to; }

void emily_tasks_copy(Tasks* tasks, char* to, const char* from, size_t bytes) { tasks->add_copy(to, from, bytes); }

int emily_tasks_finish(Tasks* tasks, const mx::Stream* stream) {
  return emily::guarded([=] { tasks->finish(*stream); });
}

int emily_tasks_run(const Tasks* tasks) {
  return emily::guarded([=] { tasks->run(); });
}

void emily_tasks_drop(Tasks* tasks) { delete tasks; }
}
