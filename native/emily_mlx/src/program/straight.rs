//! Steps of a program between its conditions, loops and calls, which can be recorded as one.

use std::collections::HashSet;
use std::ops::Range;

use parking_lot::Mutex;

use super::kept::Shelf;
use super::step::{Block, Place, Step, Straight};

/// Fewer operations are not worth the copies of what they read and give.
const FEWEST: usize = 24;

/// Those of a program's body.
pub(super) fn all(body: &Block) -> Vec<Straight> {
    let is_plain = |step: &Step| matches!(step, Step::Operation(_) | Step::Chain(_));
    let mut all = Vec::new();
    let mut first = 0;
    for group in body.steps.chunk_by(|a, b| is_plain(a) && is_plain(b)) {
        let steps = first..first + group.len();
        first = steps.end;
        let operations: usize = group.iter().map(|step| step.operations().len()).sum();
        if operations >= FEWEST {
            all.push(straight(body, steps));
        }
    }
    all
}

fn straight(body: &Block, steps: Range<usize>) -> Straight {
    let group = &body.steps[steps.clone()];
    let mut own = HashSet::new();
    for step in group {
        own.extend(step.operations().iter().map(|operation| operation.to));
    }
    let mut reads = Vec::new();
    let mut known = HashSet::new();
    let mut note = |place: Place| {
        if !own.contains(&place.register) && known.insert((place.register, place.element)) {
            reads.push(place);
        }
    };
    group.iter().for_each(|step| step.each_read(&mut note));
    let mut gives = Vec::new();
    let mut given = HashSet::new();
    let mut give = |place: Place| {
        if own.contains(&place.register) && given.insert(place.register) {
            gives.push(place.register);
        }
    };
    let behind = &body.steps[steps.end..];
    behind.iter().for_each(|step| step.each_read(&mut give));
    body.results.iter().copied().for_each(give);
    Straight {
        steps,
        reads,
        gives,
        shelf: Shelf::default(),
        luck: Mutex::default(),
    }
}
