//! Levels by their names.

use emily_kernels::dispatch::Level;

#[test]
fn levels_have_names() {
    let levels: Vec<Level> = Level::available().collect();
    assert_eq!(levels[0], Level::PORTABLE);
    for level in levels {
        assert_eq!(Level::named(level.name()), Some(level));
    }
    for name in ["", "off", "Portable", "avx", "sse2"] {
        assert_eq!(Level::named(name), None);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn levels_need_their_instructions() {
    assert_eq!(
        Level::named("avx2").is_some(),
        is_x86_feature_detected!("avx2")
    );
    assert_eq!(Level::named("neon"), None);
}
