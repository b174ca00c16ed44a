//! The operations' names.

use strum::{EnumIter, IntoStaticStr};

use crate::ops::table::operations;

macro_rules! column {
    () => {
        false
    };
    (lapack) => {
        true
    };
}

macro_rules! names {
    ($variables:tt $($name:ident $($column:ident)? => $arm:expr,)*) => {
        /// The operations, under the names by which they cross from Elixir (in snake case).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
        #[strum(serialize_all = "snake_case")]
        pub enum Op {
            $($name,)*
        }

        impl Op {
            /// Whether LAPACK computes it.
            pub fn is_linalg(self) -> bool {
                match self {
                    $(Op::$name => column!($($column)?),)*
                }
            }
        }
    };
}

operations!(names);

impl Op {
    pub fn name(self) -> &'static str {
        self.into()
    }
}
