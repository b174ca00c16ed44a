//! Levels: the instructions that a processor has. Each loop is compiled for all of them from one source.

use once_cell::sync::Lazy;

/// A level that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(#[doc(hidden)] pub(crate) Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// And the dot products of AVX-VNNI, which blocks are multiplied with.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// And its VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// And AMX, which large products of `f32` are computed with.
    #[cfg(target_arch = "x86_64")]
    Avx512Amx,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// The levels by their names, from the plainest on.
const NAMES: [&str; 7] = [
    "portable",
    "avx2",
    "avx_vnni",
    "avx512",
    "avx512_vnni",
    "avx512_amx",
    "neon",
];

impl Level {
    /// What the compiler takes without being told more of the processor.
    pub const PORTABLE: Level = Level(Kind::Portable);

    /// The levels that this processor has, the best one last.
    pub fn available() -> impl Iterator<Item = Level> {
        NAMES.into_iter().filter_map(Level::named)
    }

    /// The best level that this processor has.
    pub fn best() -> Level {
        Level::available().last().unwrap_or(Level::PORTABLE)
    }

    /// The level of that name, if this processor has it.
    pub fn named(name: &str) -> Option<Level> {
        match name {
            "portable" => Some(Level::PORTABLE),
            #[cfg(target_arch = "x86_64")]
            "avx2" => has_avx2().then_some(Level(Kind::Avx2)),
            #[cfg(target_arch = "x86_64")]
            "avx_vnni" => {
                (has_avx2() && is_x86_feature_detected!("avxvnni")).then_some(Level(Kind::AvxVnni))
            }
            #[cfg(target_arch = "x86_64")]
            "avx512_vnni" => (has_avx2() && has_avx512() && is_x86_feature_detected!("avx512vnni"))
                .then_some(Level(Kind::Avx512Vnni)),
            #[cfg(target_arch = "x86_64")]
            "avx512_amx" => (Level::named("avx512_vnni").is_some() && *HAS_AMX)
                .then_some(Level(Kind::Avx512Amx)),
            #[cfg(target_arch = "x86_64")]
            "avx512" => (has_avx2() && has_avx512()).then_some(Level(Kind::Avx512)),
            #[cfg(target_arch = "aarch64")]
            "neon" => std::arch::is_aarch64_feature_detected!("neon").then_some(Level(Kind::Neon)),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => "avx_vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512_vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Amx => "avx512_amx",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        }
    }

    /// The level that `EMILY_KERNELS` names, or else the best; none where it says `off`. An error where it names none
    /// that this processor has.
    pub fn chosen() -> Result<Option<Level>, &'static str> {
        match &*CHOSEN {
            Ok(level) => Ok(*level),
            Err(message) => Err(message),
        }
    }
}

static CHOSEN: Lazy<Result<Option<Level>, String>> =
    Lazy::new(|| match std::env::var("EMILY_KERNELS") {
        Err(_) => Ok(Some(Level::best())),
        Ok(name) if name.is_empty() => Ok(Some(Level::best())),
        Ok(name) if name == "off" => Ok(None),
        Ok(name) => match Level::named(&name) {
            Some(level) => Ok(Some(level)),
            None => Err(refusal(&name)),
        },
    });

fn refusal(name: &str) -> String {
    let available: Vec<&str> = Level::available().map(Level::name).collect();
    format!(
        "EMILY_KERNELS is {name:?}; here it may be off, {}",
        available.join(", ")
    )
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("popcnt")
}

/// Whether the processor multiplies tiles of floats of 16 bits, and the system lets this process.
#[cfg(target_arch = "x86_64")]
static HAS_AMX: Lazy<bool> = Lazy::new(|| {
    const LEAF: u32 = 7;
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    let found = std::arch::x86_64::__cpuid_count(LEAF, 0).edx;
    found & (BF16 | TILES) == BF16 | TILES
        && is_x86_feature_detected!("avx512bf16")
        && may_use_tiles()
});

/// Asks the system for the tiles, which it saves for processes that asked alone.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn may_use_tiles() -> bool {
    const REQUEST: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: takes two numbers, and gives the process room for the tiles or an error.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn may_use_tiles() -> bool {
    false
}

/// Compiles a function once for each level, and gives it the level as its first argument. What it calls takes part
/// where it is `#[inline(always)]`. With `<...; A>` the body knows the level's [`Arithmetic`](crate::math::Arithmetic)
/// as `A`.
macro_rules! for_each_level {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($generic:ident: $bound:path),* $(; $arithmetic:ident)?>)? (
            $($argument:ident: $type:ty),* $(,)?
        ) $(-> $result:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name $(<$($generic: $bound),*>)? (
            level: $crate::dispatch::Level, $($argument: $type),*
        ) $(-> $result)? {
            #[inline(always)]
            fn body $(<$($generic: $bound,)* $($arithmetic: $crate::math::Arithmetic)?>)? (
                $($argument: $type),*
            ) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2")]
            fn avx2 $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
                body $(::<$($generic,)* $($crate::dispatch::arithmetic!($arithmetic Fused))?>)? ($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(
                enable = "avx2,fma,f16c,bmi1,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl"
            )]
            fn avx512 $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
                body $(::<$($generic,)* $($crate::dispatch::arithmetic!($arithmetic Fused))?>)? ($($argument),*)
            }

            #[cfg(target_arch = "aarch64")]
            #[target_feature(enable = "neon")]
            fn neon $(<$($generic: $bound),*>)? ($($argument: $type),*) $(-> $result)? {
                body $(::<$($generic,)* $($crate::dispatch::arithmetic!($arithmetic Fused))?>)? ($($argument),*)
            }

            match level.0 {
                $crate::dispatch::Kind::Portable => {
                    body $(::<$($generic,)* $($crate::dispatch::arithmetic!($arithmetic Separate))?>)? ($($argument),*)
                }
                // SAFETY: there is a level only where the processor has its instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::dispatch::Kind::Avx2 | $crate::dispatch::Kind::AvxVnni => unsafe {
                    avx2 $(::<$($generic),*>)? ($($argument),*)
                },
                #[cfg(target_arch = "x86_64")]
                $crate::dispatch::Kind::Avx512
                | $crate::dispatch::Kind::Avx512Vnni
                | $crate::dispatch::Kind::Avx512Amx => {
                    // SAFETY: as above.
                    unsafe { avx512 $(::<$($generic),*>)? ($($argument),*) }
                }
                // SAFETY: as above.
                #[cfg(target_arch = "aarch64")]
                $crate::dispatch::Kind::Neon => unsafe {
                    neon $(::<$($generic),*>)? ($($argument),*)
                },
            }
        }
    };
}
pub(crate) use for_each_level;

/// An arithmetic, where a body asks for one by a name.
macro_rules! arithmetic {
    ($name:ident $arithmetic:ident) => {
        $crate::math::$arithmetic
    };
}
pub(crate) use arithmetic;
