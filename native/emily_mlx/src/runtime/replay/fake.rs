//! A driver that says what it is asked for.

use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use crate::runtime::driver::{Driver, Edge, Launched, Pointer};

thread_local! {
    static SAID: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// What fails from here on.
    pub(crate) static BROKEN: Cell<&'static str> = const { Cell::new("nothing") };
}

pub(crate) fn pointer(number: usize) -> Pointer {
    std::ptr::without_provenance_mut(number)
}

fn say(what: String) -> c_int {
    let broken = what.starts_with(BROKEN.get());
    SAID.with_borrow_mut(|said| said.push(what));
    if broken {
        719
    } else {
        0
    }
}

pub(crate) fn said() -> Vec<String> {
    SAID.take()
}

/// Makes a number of another.
fn make(made: *mut Pointer, number: usize, what: String) -> c_int {
    // SAFETY: whoever asks gives the place for it.
    unsafe { *made = pointer(number) };
    say(format!("{what} makes {number}"))
}

/// Stands for the device: says what it is asked for.
pub(crate) static FAKE: Driver = {
    unsafe extern "C" fn clone_graph(made: *mut Pointer, graph: Pointer) -> c_int {
        make(made, graph.addr() + 100, format!("clone {}", graph.addr()))
    }
    unsafe extern "C" fn node_in_clone(made: *mut Pointer, node: Pointer, graph: Pointer) -> c_int {
        make(
            made,
            node.addr() + graph.addr(),
            format!("node {} in {}", node.addr(), graph.addr()),
        )
    }
    unsafe extern "C" fn add_dependencies(
        graph: Pointer,
        before: *const Pointer,
        behind: *const Pointer,
        edges: *const Edge,
        count: usize,
    ) -> c_int {
        // SAFETY: all have so many.
        let edges = unsafe { std::slice::from_raw_parts(edges, count) };
        // SAFETY: as above.
        let numbers = |list| unsafe { std::slice::from_raw_parts(list, count) };
        let numbers = |list| {
            numbers(list)
                .iter()
                .map(|x: &Pointer| x.addr())
                .collect::<Vec<_>>()
        };
        let (before, behind) = (numbers(before), numbers(behind));
        let early = edges.iter().map(|edge| *edge != Edge::default());
        let early: Vec<_> = early.collect();
        say(format!(
            "in {} {behind:?} behind {before:?}, early {early:?}",
            graph.addr()
        ))
    }
    /// A captured graph has one edge, and no other is asked.
    unsafe extern "C" fn edges(
        graph: Pointer,
        before: *mut Pointer,
        behind: *mut Pointer,
        edges: *mut Edge,
        count: *mut usize,
    ) -> c_int {
        // SAFETY: whoever asks gives a place for how many, and others for one of each.
        unsafe {
            if before.is_null() {
                *count = 1;
                return say(format!("edges of {}", graph.addr()));
            }
            assert_eq!(*count, 1);
            (*before, *behind) = (pointer(61), pointer(62));
            *edges = Edge::default();
        }
        0
    }
    unsafe extern "C" fn remove_dependencies(
        graph: Pointer,
        before: *const Pointer,
        behind: *const Pointer,
        _edges: *const Edge,
        count: usize,
    ) -> c_int {
        assert_eq!(count, 1);
        // SAFETY: there is one of each.
        let (before, behind) = unsafe { ((*before).addr(), (*behind).addr()) };
        say(format!("in {} {behind} not behind {before}", graph.addr()))
    }
    /// An odd number's is a kernel of Emily's own, and of ten and one it is none.
    unsafe extern "C" fn node_type(node: Pointer, kind: *mut c_int) -> c_int {
        // SAFETY: whoever asks gives the place for it.
        unsafe { *kind = c_int::from(node.addr() % 10 == 1) };
        0
    }
    unsafe extern "C" fn launched(node: Pointer, launched: *mut Launched) -> c_int {
        // SAFETY: as above.
        unsafe { (*launched).function = node };
        0
    }
    unsafe extern "C" fn function_name(name: *mut *const c_char, function: Pointer) -> c_int {
        let own = function.addr() % 2 == 1;
        // SAFETY: as above.
        unsafe {
            *name = if own {
                c"custom_kernel_emily_sum"
            } else {
                c"copy"
            }
            .as_ptr()
        };
        0
    }
    unsafe extern "C" fn create_graph(made: *mut Pointer, flags: c_uint) -> c_int {
        assert_eq!(flags, 0);
        make(made, 1000, "graph".to_owned())
    }
    unsafe extern "C" fn add_child(
        made: *mut Pointer,
        graph: Pointer,
        behind: *const Pointer,
        count: usize,
        child: Pointer,
    ) -> c_int {
        let behind = match count {
            0 => 0,
            // SAFETY: there is one.
            _ => unsafe { (*behind).addr() },
        };
        let what = format!("in {} {} behind {behind}", graph.addr(), child.addr());
        make(made, child.addr() + 2000, what)
    }
    unsafe extern "C" fn instantiate(
        made: *mut Pointer,
        graph: Pointer,
        flags: c_ulonglong,
    ) -> c_int {
        assert_eq!(flags, 0);
        make(
            made,
            graph.addr() + 4000,
            format!("launchable of {}", graph.addr()),
        )
    }
    unsafe extern "C" fn launch(launchable: Pointer, stream: Pointer) -> c_int {
        say(format!("launch {} on {}", launchable.addr(), stream.addr()))
    }
    unsafe extern "C" fn destroy_graph(graph: Pointer) -> c_int {
        say(format!("destroy {}", graph.addr()))
    }
    unsafe extern "C" fn copy(
        to: Pointer,
        from: *const c_void,
        bytes: usize,
        stream: Pointer,
    ) -> c_int {
        if matches!(bytes, 1 | 8) {
            // SAFETY: it is the host's memory. The device has another number at each address.
            unsafe { to.cast::<u8>().write_bytes(from.addr() as u8, bytes) };
            return say(format!("read {} on {}", from.addr(), stream.addr()));
        }
        say(format!(
            "copy {bytes} from {} to {} on {}",
            from.addr(),
            to.addr(),
            stream.addr()
        ))
    }
    unsafe extern "C" fn host_memory(made: *mut Pointer, bytes: usize, flags: c_uint) -> c_int {
        assert_eq!(flags, 1);
        // SAFETY: whoever asks gives the place for it.
        unsafe { *made = vec![0u8; bytes].leak().as_mut_ptr().cast() };
        say("host's memory".to_owned())
    }
    unsafe extern "C" fn synchronize(stream: Pointer) -> c_int {
        say(format!("wait for {}", stream.addr()))
    }
    unsafe extern "C" fn create_stream(made: *mut Pointer, flags: c_uint) -> c_int {
        assert_eq!(flags, 1);
        make(made, 8, "stream".to_owned())
    }
    unsafe extern "C" fn create_event(made: *mut Pointer, flags: c_uint) -> c_int {
        assert_eq!(flags, 2);
        make(made, 9, "event".to_owned())
    }
    unsafe extern "C" fn record_event(event: Pointer, stream: Pointer) -> c_int {
        say(format!("event {} on {}", event.addr(), stream.addr()))
    }
    /// The first time it is not over yet.
    unsafe extern "C" fn query_event(event: Pointer) -> c_int {
        let is_first =
            SAID.with_borrow(|said| !said.last().is_some_and(|last| last.starts_with("is")));
        match (say(format!("is {} over", event.addr())), is_first) {
            (0, true) => 600,
            (status, _) => status,
        }
    }
    unsafe extern "C" fn wait_for_event(event: Pointer) -> c_int {
        say(format!("wait for event {}", event.addr()))
    }
    unsafe extern "C" fn begin_capture(stream: Pointer, mode: c_int) -> c_int {
        assert_eq!(mode, 1);
        say(format!("capture {}", stream.addr()))
    }
    unsafe extern "C" fn end_capture(stream: Pointer, made: *mut Pointer) -> c_int {
        make(made, 500, format!("capture of {}", stream.addr()))
    }
    Driver {
        clone_graph,
        node_in_clone,
        add_dependencies,
        edges,
        remove_dependencies,
        node_type,
        launched,
        function_name,
        kernel_name: function_name,
        create_graph,
        add_child,
        instantiate,
        launch,
        destroy_graph,
        destroy_launchable: destroy_graph,
        copy,
        host_memory,
        synchronize,
        create_stream,
        destroy_stream: destroy_graph,
        create_event,
        destroy_event: destroy_graph,
        record_event,
        query_event,
        wait_for_event,
        begin_capture,
        end_capture,
    }
};
