//! Each kernel against arithmetic in wider numbers, and each level against the portable one.

mod chain;
mod elementwise;
mod integer;
mod support;
mod view;
