//! Steps of a program between its conditions, loops and calls, which can be recorded as one.

use std::collections::HashSet;
use std::ops::Range;

use parking_lot::Mutex;

use super::kept::{Luck, Shelf};
use super::step::{attends, what_is_seen, Block, Place, Register, Step, Straight};

/// Fewer operations are not worth the copies of what they read and give.
const FEWEST: usize = 24;

/// Those of a program's body.
pub(super) fn all(body: &Block) -> Vec<Straight> {
    let is_plain = |step: &Step| matches!(step, Step::Operation(_) | Step::Chain(_));
    // What is seen of a cache is known, where it has to be looked at, before the first step that attends to it.
    let mut seen = [None; 2];
    let mut looks = |step: &Step| {
        let new = attends(step).map(what_is_seen);
        new.is_some_and(|new| std::mem::replace(&mut seen, new) != new)
    };
    let mut all = Vec::new();
    let mut first = 0;
    for group in body
        .steps
        .chunk_by(|a, b| !looks(b) && is_plain(a) && is_plain(b))
    {
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
    let computed: HashSet<Register> = body.steps.iter().map(Step::to).collect();
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
    let is_computed = |(_, place): &(usize, &Place)| computed.contains(&place.register);
    let changes = reads.iter().enumerate().filter(is_computed);
    let changes = changes.map(|(at, _)| at).collect();
    Straight {
        steps,
        reads,
        gives,
        shelf: Shelf::default(),
        luck: Mutex::new(Luck::of(changes)),
    }
}
