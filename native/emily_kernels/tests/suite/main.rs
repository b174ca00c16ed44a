//! Each kernel against arithmetic in wider numbers, and each level against the portable one.

mod attention;
mod blocks;
mod chain;
mod dispatch;
mod dot;
mod elementwise;
mod index;
mod integer;
mod levels;
mod norm;
mod quantized;
mod real;
mod reduce;
mod rope;
mod scan;
mod sort;
mod support;
mod view;
