// The functions that MLX hands to the thread of a stream of a CPU; `src/runtime/replay/tasks.rs` stands in their way.
#include <functional>

#include "bridge.h"

using Task = std::function<void()>;

extern "C" {

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
