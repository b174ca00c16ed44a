//! The errors of the functions, as `guides/accuracy.md` has them. `EMILY_WRITE=1` writes it.

use std::fmt::Write;

use crate::{double, single};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guides/accuracy.md");

const HEAD: &str = "\
# How near the functions are

<!-- Written by `EMILY_WRITE=1 cargo test -p emily_kernels --test math` -->

The greatest errors of the kernels' functions on a CPU, in units of the last place of the true value: what is nearest to
it has at most one half. *Fused* is where the processor multiplies and adds in one step (AVX2, AVX-512, NEON), *portable*
where it does not. True values of f32 are other libraries' of f64, at {PLACES} places over all exponents and where a
function changes; those of f64 have many digits more, at the places of `native/emily_kernels/tests/fixtures/math`.
What f16 and bf16 have is computed in f32 and rounded once more.

| function | f32, fused | f32, portable | f64, fused | f64, portable |
|---|---|---|---|---|
";

/// The greatest error of a function at a level, and where it is.
pub struct Measured {
    pub name: &'static str,
    pub level: &'static str,
    pub error: f64,
    pub at: String,
}

/// Whether no function is further from its true value than its limit.
pub fn check(measured: &[Measured], limit: impl Fn(&str) -> f64) {
    let beyond: Vec<String> = measured
        .iter()
        .filter(|one| one.error > limit(one.name))
        .map(|one| format!("{} {}: {} at {}", one.name, one.level, one.error, one.at))
        .collect();
    assert!(beyond.is_empty(), "{beyond:#?}");
}

/// The error that all levels of one arithmetic have; none where this processor has no such level.
fn error(measured: &[Measured], name: &str, portable: bool) -> Option<String> {
    let mut errors = measured
        .iter()
        .filter(|one| one.name == name && (one.level == "portable") == portable)
        .map(|one| format!("{:.5}", one.error));
    let first = errors.next()?;
    assert!(
        errors.all(|other| other == first),
        "the levels of {name} differ"
    );
    Some(first)
}

#[test]
#[cfg_attr(miri, ignore = "Miri looks at fewer places")]
fn the_guide_has_the_errors() {
    let (single, double) = (&*single::ERRORS, &*double::ERRORS);
    let mut names: Vec<&str> = single.iter().map(|one| one.name).collect();
    names.dedup();
    let columns = [
        (single, false),
        (single, true),
        (double, false),
        (double, true),
    ];
    if !columns
        .iter()
        .all(|(measured, portable)| error(measured, "exp", *portable).is_some())
    {
        println!("this processor has no fused level: the guide is not compared");
        return;
    }
    let mut guide = HEAD.replace("{PLACES}", &single::places(1).len().to_string());
    for name in names {
        write!(guide, "| {name} |").unwrap();
        for (measured, portable) in columns {
            write!(guide, " {} |", error(measured, name, portable).unwrap()).unwrap();
        }
        guide.push('\n');
    }
    if std::env::var_os("EMILY_WRITE").is_some() {
        std::fs::write(GUIDE, &guide).unwrap();
    }
    let written = std::fs::read_to_string(GUIDE).unwrap_or_default();
    assert!(
        guide == written,
        "guides/accuracy.md is not what was measured:\n{guide}"
    );
}
