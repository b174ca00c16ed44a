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
mod system;

rustler::init!("Elixir.Emily.Native.Nif", load = load);

/// Called with how many threads are configured; zero stands for all.
fn load(env: rustler::Env, threads: rustler::Term) -> bool {
    let Ok(threads) = threads.decode() else {
        return false;
    };
    emily_mlx::set_threads(threads);
    names::register(env);
    emily_mlx::exit::register();
    emily_mlx::memory::keep_freed();
    true
}
