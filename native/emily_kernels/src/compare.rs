//! Comparisons of two numbers of one type, which give 1 or 0.

use crate::maps::maps;
use crate::view::Element;

maps! {
    equal<T: Element>(x, y) -> u8 = u8::from(x == y);
    not_equal<T: Element>(x, y) -> u8 = u8::from(x != y);
    greater<T: Element>(x, y) -> u8 = u8::from(x > y);
    greater_equal<T: Element>(x, y) -> u8 = u8::from(x >= y);
    less<T: Element>(x, y) -> u8 = u8::from(x < y);
    less_equal<T: Element>(x, y) -> u8 = u8::from(x <= y);
}
