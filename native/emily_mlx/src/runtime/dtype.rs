use mlx_sys::mlx_dtype;
use strum::{EnumIter, EnumString, IntoStaticStr};

/// MLX's types under Nx's short names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Dtype {
    Bool,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    Bf16,
    F32,
    F64,
    C64,
}

impl Dtype {
    pub fn name(self) -> &'static str {
        self.into()
    }

    pub(crate) fn of(array: &mlx_rs::Array) -> Dtype {
        match array.dtype() {
            mlx_rs::Dtype::Bool => Dtype::Bool,
            mlx_rs::Dtype::Uint8 => Dtype::U8,
            mlx_rs::Dtype::Uint16 => Dtype::U16,
            mlx_rs::Dtype::Uint32 => Dtype::U32,
            mlx_rs::Dtype::Uint64 => Dtype::U64,
            mlx_rs::Dtype::Int8 => Dtype::S8,
            mlx_rs::Dtype::Int16 => Dtype::S16,
            mlx_rs::Dtype::Int32 => Dtype::S32,
            mlx_rs::Dtype::Int64 => Dtype::S64,
            mlx_rs::Dtype::Float16 => Dtype::F16,
            mlx_rs::Dtype::Bfloat16 => Dtype::Bf16,
            mlx_rs::Dtype::Float32 => Dtype::F32,
            mlx_rs::Dtype::Float64 => Dtype::F64,
            mlx_rs::Dtype::Complex64 => Dtype::C64,
        }
    }

    pub(crate) fn raw(self) -> mlx_dtype {
        match self {
            Dtype::Bool => mlx_sys::mlx_dtype__MLX_BOOL,
            Dtype::U8 => mlx_sys::mlx_dtype__MLX_UINT8,
            Dtype::U16 => mlx_sys::mlx_dtype__MLX_UINT16,
            Dtype::U32 => mlx_sys::mlx_dtype__MLX_UINT32,
            Dtype::U64 => mlx_sys::mlx_dtype__MLX_UINT64,
            Dtype::S8 => mlx_sys::mlx_dtype__MLX_INT8,
            Dtype::S16 => mlx_sys::mlx_dtype__MLX_INT16,
            Dtype::S32 => mlx_sys::mlx_dtype__MLX_INT32,
            Dtype::S64 => mlx_sys::mlx_dtype__MLX_INT64,
            Dtype::F16 => mlx_sys::mlx_dtype__MLX_FLOAT16,
            Dtype::Bf16 => mlx_sys::mlx_dtype__MLX_BFLOAT16,
            Dtype::F32 => mlx_sys::mlx_dtype__MLX_FLOAT32,
            Dtype::F64 => mlx_sys::mlx_dtype__MLX_FLOAT64,
            Dtype::C64 => mlx_sys::mlx_dtype__MLX_COMPLEX64,
        }
    }

    /// The size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::S8 => 1,
            Dtype::U16 | Dtype::S16 | Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::U32 | Dtype::S32 | Dtype::F32 => 4,
            Dtype::U64 | Dtype::S64 | Dtype::F64 | Dtype::C64 => 8,
        }
    }

    pub(crate) fn is_integer(self) -> bool {
        self.integer_range().is_some()
    }

    pub(crate) fn is_signed(self) -> bool {
        self.integer_range().is_some_and(|(low, _)| low < 0)
    }

    /// The unsigned type of an integer type's width.
    pub(crate) fn unsigned(self) -> Self {
        match self {
            Dtype::S8 => Dtype::U8,
            Dtype::S16 => Dtype::U16,
            Dtype::S32 => Dtype::U32,
            Dtype::S64 => Dtype::U64,
            other => other,
        }
    }

    /// The signed integer type of a float type's width.
    pub(crate) fn signed(self) -> Self {
        match self {
            Dtype::F16 | Dtype::Bf16 => Dtype::S16,
            Dtype::F32 => Dtype::S32,
            Dtype::F64 => Dtype::S64,
            other => other,
        }
    }

    pub(crate) fn is_real_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64)
    }

    /// Whether a type is a float of 16 bits.
    pub(crate) fn is_half(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::Bf16)
    }

    /// The least and the greatest value of an integer type.
    pub(crate) fn integer_range(self) -> Option<(i128, i128)> {
        let range = match self {
            Dtype::U8 => (u8::MIN.into(), u8::MAX.into()),
            Dtype::U16 => (u16::MIN.into(), u16::MAX.into()),
            Dtype::U32 => (u32::MIN.into(), u32::MAX.into()),
            Dtype::U64 => (u64::MIN.into(), u64::MAX.into()),
            Dtype::S8 => (i8::MIN.into(), i8::MAX.into()),
            Dtype::S16 => (i16::MIN.into(), i16::MAX.into()),
            Dtype::S32 => (i32::MIN.into(), i32::MAX.into()),
            Dtype::S64 => (i64::MIN.into(), i64::MAX.into()),
            _ => return None,
        };
        Some(range)
    }
}

/// `by_type!(dtype, integers, T => f::<T>())` is the value for the type, if it is among those named, and else `None`.
macro_rules! by_type {
    ($dtype:expr, floats, $type:ident => $value:expr) => {
        $crate::runtime::dtype::by_type!(@match $dtype, $type => $value, F32 f32, F64 f64)
    };
    ($dtype:expr, integers, $type:ident => $value:expr) => {
        $crate::runtime::dtype::by_type!(
            @match $dtype, $type => $value,
            U8 u8, U16 u16, U32 u32, U64 u64, S8 i8, S16 i16, S32 i32, S64 i64
        )
    };
    ($dtype:expr, numbers, $type:ident => $value:expr) => {
        $crate::runtime::dtype::by_type!(
            @match $dtype, $type => $value,
            U8 u8, U16 u16, U32 u32, U64 u64, S8 i8, S16 i16, S32 i32, S64 i64, F32 f32, F64 f64
        )
    };
    (@match $dtype:expr, $type:ident => $value:expr, $($name:ident $own:ident),*) => {
        match $dtype {
            $($crate::runtime::dtype::Dtype::$name => {
                type $type = $own;
                $value
            })*
            _ => None,
        }
    };
}
pub(crate) use by_type;
