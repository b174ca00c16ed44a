// Work that MLX queues on an NVIDIA GPU, kept so that it can be queued again without MLX. MLX hands the device a CUDA
// graph at each commit of its encoder; a recording keeps copies of these graphs, one after the other in a graph of its
// own, and every buffer that they use.
#include <dlfcn.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bridge.h"

extern "C" {

// As in `src/runtime/replay.rs`: where an array's elements are on the device.
struct emily_room {
  char* data;
  const void* buffer;
  size_t bytes;
  bool row_contiguous;
};
}

namespace {

// CUDA's driver, which comes with MLX for CUDA. Its headers are not there where this is compiled; graphs, nodes, graphs
// that can be launched and streams are pointers.
struct Driver {
  int (*clone)(void** copy, void* graph);
  int (*node_in_clone)(void** found, void* node, void* clone);
  int (*depend)(void* graph, void* const* from, void* const* to, const void* data, size_t count);
  int (*create)(void** graph, unsigned flags);
  int (*add_child)(void** node, void* graph, void* const* after, size_t count, void* child);
  int (*instantiate)(void** exec, void* graph, unsigned long long flags);
  int (*launch)(void* exec, void* stream);
  int (*destroy)(void* graph);
  int (*destroy_exec)(void* exec);
  int (*copy)(void* to, const void* from, size_t bytes, void* stream);
  int (*synchronize)(void* stream);
  int (*stream_create)(void** stream, unsigned flags);
  int (*stream_destroy)(void* stream);
  int (*begin_capture)(void* stream, int mode);
  int (*end_capture)(void* stream, void** graph);
  bool is_complete = true;

  Driver() {
    find(clone, "cuGraphClone");
    find(node_in_clone, "cuGraphNodeFindInClone");
    find(depend, "cuGraphAddDependencies_v2");
    find(create, "cuGraphCreate");
    find(add_child, "cuGraphAddChildGraphNode");
    find(instantiate, "cuGraphInstantiateWithFlags");
    find(launch, "cuGraphLaunch");
    find(destroy, "cuGraphDestroy");
    find(destroy_exec, "cuGraphExecDestroy");
    find(copy, "cuMemcpyAsync");
    find(synchronize, "cuStreamSynchronize");
    find(stream_create, "cuStreamCreate");
    find(stream_destroy, "cuStreamDestroy_v2");
    find(begin_capture, "cuStreamBeginCapture_v2");
    find(end_capture, "cuStreamEndCapture");
  }

  template <class F>
  void find(F& function, const char* name) {
    // MLX, whose libraries come next, has loaded the driver.
    function = reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
    is_complete = is_complete && function;
  }
};

const Driver& driver() {
  static const Driver driver;
  return driver;
}

void check(const char* what, int status) {
  if (status)
    throw std::runtime_error(std::string("[replay] ") + what + " gave CUDA's error " + std::to_string(status));
}

// The beginning of MLX 0.32.4's `cu::CommandEncoder`, which it lets nobody else see.
struct Encoder {
  void* device;
  void* stream;
  void* graph;
  std::shared_ptr<void> worker;
  int nodes;
  bool concurrent;
  std::vector<void*> from;
  std::vector<void*> to;
  std::string nodes_key;
  std::string dependencies_key;
  std::vector<void*> concurrent_nodes;
  std::vector<std::shared_ptr<mx::array::Data>> temporaries;
};

class Recording {
 public:
  Recording() = default;
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() {
    if (exec_) driver().destroy_exec(exec_);
    if (graph_) driver().destroy(graph_);
  }

  // Keeps what the encoder is about to hand to the device. MLX goes on whatever happens here.
  void take(const Encoder& encoder) noexcept {
    if (!failure_.empty()) return;
    try {
      held_.insert(held_.end(), encoder.temporaries.begin(), encoder.temporaries.end());
      if (stream_ && stream_ != encoder.stream) throw std::runtime_error("[replay] there are two streams");
      stream_ = encoder.stream;
      if (encoder.nodes == 0) return;
      void* piece = nullptr;
      check("cuGraphClone", driver().clone(&piece, encoder.graph));
      std::unique_ptr<void, int (*)(void*)> owned(piece, driver().destroy);
      auto in_piece = [&](const std::vector<void*>& nodes) {
        std::vector<void*> found(nodes.size());
        for (size_t i = 0; i < nodes.size(); i++)
          check("cuGraphNodeFindInClone", driver().node_in_clone(&found[i], nodes[i], piece));
        return found;
      };
      auto from = in_piece(encoder.from), to = in_piece(encoder.to);
      if (!from.empty())
        check("cuGraphAddDependencies", driver().depend(piece, from.data(), to.data(), nullptr, from.size()));
      append(piece);
    } catch (const std::exception& error) {
      failure_ = error.what();
    }
  }

  // `bytes` that are copied at the end of each turn.
  void add_copy(void* to, const void* from, size_t bytes) { copies_.push_back({to, from, bytes}); }

  void finish() {
    if (!failure_.empty()) throw std::runtime_error(failure_);
    if (!graph_) throw std::runtime_error("[replay] nothing was recorded");
    if (!copies_.empty()) {
      void *stream = nullptr, *copies = nullptr;
      check("cuStreamCreate", driver().stream_create(&stream, 1));
      std::unique_ptr<void, int (*)(void*)> owned(stream, driver().stream_destroy);
      check("cuStreamBeginCapture", driver().begin_capture(stream, 1));
      int status = copy_all(stream);
      int ended = driver().end_capture(stream, &copies);
      check("cuMemcpyAsync", status);
      check("cuStreamEndCapture", ended);
      std::unique_ptr<void, int (*)(void*)> owned_copies(copies, driver().destroy);
      append(copies);
    }
    check("cuGraphInstantiate", driver().instantiate(&exec_, graph_, 0));
    // What MLX has run so far is the turn without its copies.
    check("cuMemcpyAsync", copy_all(stream_));
  }

  void run() { check("cuGraphLaunch", driver().launch(exec_, stream_)); }

  void wait() { check("cuStreamSynchronize", driver().synchronize(stream_)); }

 private:
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
  };

  // A graph to run behind all before.
  void append(void* piece) {
    if (!graph_) check("cuGraphCreate", driver().create(&graph_, 0));
    void* node = nullptr;
    check("cuGraphAddChildGraphNode", driver().add_child(&node, graph_, &last_, last_ ? 1 : 0, piece));
    last_ = node;
  }

  int copy_all(void* stream) const {
    for (const auto& copy : copies_)
      if (int status = driver().copy(copy.to, copy.from, copy.bytes, stream)) return status;
    return 0;
  }

  void* stream_ = nullptr;
  void* graph_ = nullptr;
  void* last_ = nullptr;
  void* exec_ = nullptr;
  std::vector<Copy> copies_;
  std::vector<std::shared_ptr<mx::array::Data>> held_;
  std::string failure_;
};

// Whose work the thread records.
thread_local Recording* recording = nullptr;

} // namespace

extern "C" {

// MLX's encoder commits. `src/runtime/replay.rs` stands in MLX's way to its own.
void emily_commit(Encoder* encoder) {
  static const auto own =
      reinterpret_cast<void (*)(Encoder*)>(dlsym(RTLD_NEXT, "_ZN3mlx4core2cu14CommandEncoder11commit_implEv"));
  if (recording) recording->take(*encoder);
  own(encoder);
}

// Whether the driver has what recordings need.
bool emily_records() { return driver().is_complete; }

Recording* emily_recording() { return new Recording; }

// What the thread has MLX schedule is recorded from here on; null ends that.
void emily_record(Recording* to) { recording = to; }

void emily_recording_copy(Recording* recording, void* to, const void* from, size_t bytes) {
  recording->add_copy(to, from, bytes);
}

int emily_recording_finish(Recording* recording) {
  return emily::guarded([=] { recording->finish(); });
}

int emily_recording_run(Recording* recording) {
  return emily::guarded([=] { recording->run(); });
}

int emily_recording_wait(Recording* recording) {
  return emily::guarded([=] { recording->wait(); });
}

void emily_recording_drop(Recording* recording) { delete recording; }

// Where the elements of an array that was scheduled on an NVIDIA GPU are. Its buffer begins with their address.
bool emily_room_of(const mx::array* x, emily_room* room) {
  if (!x->data_shared_ptr()) return false;
  const void* buffer = x->buffer().ptr();
  if (!buffer) return false;
  *room = {*static_cast<char* const*>(buffer) + x->offset(), buffer, x->nbytes(), x->flags().row_contiguous};
  return true;
}
}
