//! The NIF library: decodes terms, calls `emily_mlx`, encodes what it gives. What must be computed is
//! queued, and its answer is a message; the few functions that wait for MLX's scheduling (new streams,
//! the cache) are dirty.

mod arrays;
mod error;
mod evaluation;
mod expression;
mod host;
mod names;
mod operations;
mod programs;
mod resources;
mod room;
mod system;
mod threads;

rustler::init!("Elixir.Emily.Native.Nif", load = load);

/// Called with how many threads are configured, of which zero stands for all, and with variables of the environment
/// that MLX reads when it is first used.
fn load(env: rustler::Env, settings: rustler::Term) -> bool {
    let Ok((threads, variables)) = settings.decode::<(usize, Vec<(String, String)>)>() else {
        return false;
    };
    for (name, value) in variables {
        std::env::set_var(name, value);
    }
    emily_mlx::set_threads(threads);
    names::register(env);
    emily_mlx::finish_on_exit();
    emily_mlx::memory::keep_freed();
    true
}
