//! The functions against true values: of f64 against a fixture of many digits, of f32 against other libraries' f64.
//! Errors are in units of the last place of the true value, so the nearest number has at most one half.

mod double;
mod guide;
mod levels;
mod single;
mod special;
mod table;
