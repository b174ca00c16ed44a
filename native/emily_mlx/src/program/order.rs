//! An order of steps in which little memory is needed at once: what the program gives, and what can be written over
//! something that has ended, comes as soon as its operands are there.

use std::collections::HashSet;

use smallvec::SmallVec;

/// A step that is no condition, loop or call.
#[derive(Debug, Default)]
pub(super) struct Task {
    /// Earlier tasks whose results it reads.
    pub needs: SmallVec<[usize; 3]>,
    /// The memories that it reads, each once.
    pub reads: SmallVec<[usize; 3]>,
    /// The memory of its result; none of a view's.
    pub gives: Option<usize>,
    /// Whether its result may lie in the memory of what it reads.
    pub in_place: bool,
    /// Whether its result is read by more than tasks.
    pub wanted: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub bytes: u64,
    /// Whether it outlives the tasks.
    pub stays: bool,
}

/// Limits that differ by less than such a part of all memory are one.
const FINE: i64 = 200;

/// The numbers of the tasks in the order to run them in: that of the least limit which one is found to keep, by halving.
/// What fits costs nothing, so that the limit decides how far from the best at each place an order may be.
pub(super) fn order(tasks: &[Task], memories: &[Memory]) -> Vec<usize> {
    let mut best = order_within(tasks, memories, 0, i64::MAX).unwrap_or_default();
    let mut most = growth(tasks, memories, &best).1;
    let fine = (at_first(tasks, memories) as i64).saturating_add(most) / FINE;
    let mut broken = 0;
    while most - broken > fine.max(1) {
        let limit = broken + (most - broken) / 2;
        let better = order_within(tasks, memories, limit, most);
        let taken = better
            .as_ref()
            .map(|other| growth(tasks, memories, other).1);
        if taken.is_none_or(|taken| taken > limit) {
            broken = limit;
        }
        if let (Some(other), Some(taken)) = (better, taken) {
            (best, most) = (other, taken);
        }
    }
    best
}

/// One result after the other: next is the one that has the most that is taken at once grow least beyond the limit, with all
/// that it needs and is not there, and of these the one after which least memory is taken. What gives memory back, or takes
/// the place of what has ended, comes as soon as its operands are there. None where `most` is taken at once, or more.
fn order_within(tasks: &[Task], memories: &[Memory], limit: i64, most: i64) -> Option<Vec<usize>> {
    let mut state = State::new(tasks, memories);
    state.most = limit;
    let mut order = Vec::with_capacity(tasks.len());
    let mut goals: Vec<usize> = (0..tasks.len()).filter(|at| state.is_goal(*at)).collect();
    while !goals.is_empty() {
        let mut best: Option<(Cost, usize, Vec<usize>)> = None;
        let mut fewest = usize::MAX;
        for (at, goal) in goals.iter().enumerate() {
            let far = fewest.saturating_mul(FAR).saturating_add(NEAR);
            let Some(needed) = state.needed(*goal, far) else {
                continue;
            };
            fewest = fewest.min(needed.len());
            let cost = state.cost(&needed);
            if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                best = Some((cost, at, needed));
            }
        }
        let Some((_, at, needed)) = best else {
            break;
        };
        goals.remove(at);
        for task in needed {
            while let Some(saving) = state.saving(task) {
                state.run(saving, &mut order);
            }
            if !state.done[task] {
                state.run(task, &mut order);
            }
        }
        while let Some(saving) = state.saving(usize::MAX) {
            state.run(saving, &mut order);
        }
        goals.retain(|goal| !state.done[*goal]);
        if state.most >= most {
            return None;
        }
    }
    Some(order)
}

/// Where in an order the most memory is taken, and how much.
pub(super) fn peak(tasks: &[Task], memories: &[Memory], order: &[usize]) -> (usize, u64) {
    let (at, most) = growth(tasks, memories, order);
    (at, at_first(tasks, memories).saturating_add_signed(most))
}

/// The memory of what no task gives.
fn at_first(tasks: &[Task], memories: &[Memory]) -> u64 {
    let given: HashSet<usize> = tasks.iter().filter_map(|task| task.gives).collect();
    let is_there = |(at, _): &(usize, &Memory)| !given.contains(at);
    let there = memories.iter().enumerate().filter(is_there);
    there.map(|(_, memory)| memory.bytes).sum()
}

/// Where in an order the most memory is taken beyond what there was at first, and how much.
fn growth(tasks: &[Task], memories: &[Memory], order: &[usize]) -> (usize, i64) {
    let mut state = State::new(tasks, memories);
    let mut at = 0;
    for (place, task) in order.iter().enumerate() {
        let most = state.most;
        state.run(*task, &mut Vec::new());
        if state.most > most {
            at = place;
        }
    }
    (at, state.most)
}

/// Goals that need many times as many tasks as others are not looked at, unless they are few.
const FAR: usize = 4;
const NEAR: usize = 64;

/// What more tasks need than these ends with none of them.
const SHARED: usize = 8;

/// Whether it could take less once others have run, the most that is taken at once, with what was taken before, then what
/// is taken for long, and what for a while.
type Cost = (bool, i64, i64, i64);

struct State<'a> {
    tasks: &'a [Task],
    memories: &'a [Memory],
    done: Vec<bool>,
    /// How many tasks that have not run read each memory.
    readers: Vec<u32>,
    /// How many tasks that have not run each task needs, and who needs it.
    waits_for: Vec<usize>,
    needed_by: Vec<SmallVec<[usize; 3]>>,
    /// The tasks that need none any more and have not run.
    ready: Vec<usize>,
    /// The round in which each task was met.
    met: Vec<usize>,
    round: usize,
    /// What is taken beyond what there was at first, and the most so far, or what it may be at least.
    taken: i64,
    most: i64,
}

/// Whether what a task takes, while it runs and then, is nothing, or less than it gives back.
fn saves(before: i64, after: i64) -> bool {
    after < 0 || (before, after) == (0, 0)
}

impl<'a> State<'a> {
    fn new(tasks: &'a [Task], memories: &'a [Memory]) -> Self {
        let mut readers = vec![0; memories.len()];
        for memory in tasks.iter().flat_map(|task| &task.reads) {
            readers[*memory] += 1;
        }
        let mut needed_by = vec![SmallVec::new(); tasks.len()];
        for (at, task) in tasks.iter().enumerate() {
            task.needs.iter().for_each(|need| needed_by[*need].push(at));
        }
        let waits_for: Vec<usize> = tasks.iter().map(|task| task.needs.len()).collect();
        State {
            tasks,
            memories,
            done: vec![false; tasks.len()],
            readers,
            ready: (0..tasks.len()).filter(|at| waits_for[*at] == 0).collect(),
            waits_for,
            needed_by,
            met: vec![0; tasks.len()],
            round: 0,
            taken: 0,
            most: 0,
        }
    }

    /// Whether a task is wanted for itself: each task is needed by one that is.
    fn is_goal(&self, at: usize) -> bool {
        self.tasks[at].wanted || self.needed_by[at].is_empty()
    }

    /// What has to run for a task, itself included, in order; none where that is more than `most`.
    fn needed(&mut self, goal: usize, most: usize) -> Option<Vec<usize>> {
        self.round += 1;
        let mut found = Vec::new();
        let mut left = vec![goal];
        while let Some(task) = left.pop() {
            if self.done[task] || self.met[task] == self.round {
                continue;
            }
            self.met[task] = self.round;
            found.push(task);
            if found.len() > most {
                return None;
            }
            left.extend(&self.tasks[task].needs);
        }
        found.sort_unstable();
        Some(found)
    }

    /// What the tasks cost that `needed` has found last, with those that give memory back right behind them.
    fn cost(&mut self, tasks: &[usize]) -> Cost {
        let (mut taken, mut most, mut waits) = (0, 0, false);
        for task in tasks {
            let (before, after) = self.takes(*task);
            waits = before > 0 && self.may_take_a_place(*task);
            most = most.max(taken + before);
            taken += after;
            self.read(*task, |readers| *readers -= 1);
        }
        let mut ran = tasks.to_vec();
        let mut at = 0;
        while at < ran.len() {
            let waiting = self.needed_by[ran[at]].len();
            let waiting = if waiting > SHARED { 0 } else { waiting };
            for number in 0..waiting {
                let next = self.needed_by[ran[at]][number];
                let (before, after) = self.takes(next);
                if taken + before <= most && saves(before, after) && self.is_met_but_for(next) {
                    taken += after;
                    self.met[next] = self.round;
                    self.read(next, |readers| *readers -= 1);
                    ran.push(next);
                }
            }
            at += 1;
        }
        for task in &ran {
            self.read(*task, |readers| *readers += 1);
        }
        (waits, self.most.max(self.taken + most), taken, most)
    }

    /// Whether all that a task needs was met in this round or has run, and not the task.
    fn is_met_but_for(&self, task: usize) -> bool {
        let is_met = |task: usize| self.done[task] || self.met[task] == self.round;
        !is_met(task) && self.tasks[task].needs.iter().all(|need| is_met(*need))
    }

    /// Whether a task's result can lie in the memory of something that others read.
    fn may_take_a_place(&self, task: usize) -> bool {
        let task = &self.tasks[task];
        let given = task.gives.map_or(0, |memory| self.memories[memory].bytes);
        let fits = |memory: &usize| {
            let Memory { bytes, stays } = self.memories[*memory];
            !stays && bytes == given && self.readers[*memory] > 1
        };
        task.in_place && task.reads.iter().any(fits)
    }

    /// What a task takes while it runs, and what then.
    fn takes(&self, task: usize) -> (i64, i64) {
        let task = &self.tasks[task];
        let bytes = |memory: usize| self.memories[memory].bytes;
        let given = task.gives.map_or(0, bytes);
        let ends = |memory: &&usize| self.readers[**memory] == 1 && !self.memories[**memory].stays;
        let ended = || task.reads.iter().filter(ends).map(|memory| bytes(*memory));
        let over = task.in_place && ended().any(|bytes| bytes == given);
        let before = if over { 0 } else { given };
        (before as i64, given as i64 - ended().sum::<u64>() as i64)
    }

    fn read(&mut self, task: usize, change: impl Fn(&mut u32)) {
        for memory in &self.tasks[task].reads {
            change(&mut self.readers[*memory]);
        }
    }

    /// A task that is ready and takes no memory for long, nor any that it does not give back: the one that gives most. Or one
    /// of several that together do so. None has more taken at once than there was or than the `next` task has.
    fn saving(&self, next: usize) -> Option<usize> {
        let waits = next < self.tasks.len() && !self.done[next];
        let next = if waits { self.takes(next).0 } else { 0 };
        let room = (self.most - self.taken).max(next - 1).max(0);
        let gives = |task: &&usize| self.tasks[**task].gives.is_some();
        let ready = || self.ready.iter().filter(gives);
        let is_free = |task: &&usize| {
            let (before, after) = self.takes(**task);
            before <= room && saves(before, after)
        };
        let alone = ready().filter(is_free);
        let alone = alone.min_by_key(|task| (self.takes(**task).1, **task));
        let together = || ready().find(|task| self.saves_with_others(**task, room));
        alone.or_else(together).copied()
    }

    /// Whether a task and the others that read the same memory, which are ready as well, give less than they end.
    fn saves_with_others(&self, task: usize, room: i64) -> bool {
        let reads = |memory: usize| {
            let ready = self.ready.iter().map(|other| &self.tasks[*other]);
            ready.filter(move |other| other.reads.contains(&memory))
        };
        let given = |task: &Task| task.gives.map(|memory| self.memories[memory].bytes);
        self.tasks[task].reads.iter().any(|&memory| {
            let Memory { bytes, stays } = self.memories[memory];
            let readers = self.readers[memory] as usize;
            let all = || reads(memory).map(given);
            let sum: u64 = all().flatten().sum();
            !stays
                && readers > 1
                && all().count() == readers
                && all().all(|given| given.is_some())
                && sum < bytes
                && sum as i64 <= room
        })
    }

    fn run(&mut self, task: usize, order: &mut Vec<usize>) {
        let (meanwhile, then) = self.takes(task);
        self.most = self.most.max(self.taken + meanwhile);
        self.taken += then;
        order.push(task);
        self.done[task] = true;
        self.read(task, |readers| *readers -= 1);
        self.ready.retain(|other| *other != task);
        for &waiting in &self.needed_by[task] {
            self.waits_for[waiting] -= 1;
            if self.waits_for[waiting] == 0 {
                self.ready.push(waiting);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes: u64, stays: bool) -> Memory {
        Memory { bytes, stays }
    }

    fn task(needs: &[usize], reads: &[usize], gives: usize) -> Task {
        Task {
            needs: needs.into(),
            reads: reads.into(),
            gives: Some(gives),
            ..Task::default()
        }
    }

    /// Two layers of weights 0 and 1: the gradients 4 and 5 of both are not there at once.
    #[test]
    fn updates_come_when_their_gradient_is_there() {
        let memories = [
            memory(10, false),
            memory(10, false),
            memory(1, false),
            memory(1, false),
            memory(10, false),
            memory(10, false),
            memory(10, true),
            memory(10, true),
        ];
        let update = |needs: &[usize], reads: &[usize], gives| Task {
            in_place: true,
            wanted: true,
            ..task(needs, reads, gives)
        };
        let tasks = [
            task(&[], &[1], 2),
            task(&[0], &[2, 0], 3),
            task(&[0], &[2], 4),
            task(&[1], &[3], 5),
            update(&[2], &[4, 1], 6),
            update(&[3], &[5, 0], 7),
        ];
        assert_eq!(order(&tasks, &memories), [0, 2, 4, 1, 3, 5]);
    }

    /// Three layers with biases: going back to the small gradients of all biases first takes little at each place, and keeps
    /// what the large gradients of the weights need.
    #[test]
    fn small_results_wait_for_the_large_ones_that_they_would_make_larger() {
        let mut memories = vec![memory(10, true)];
        memories.extend([memory(40, false); 6]);
        memories.extend([memory(1, false); 3]);
        let (x, weight, moment, bias) = (
            0,
            |at: usize| 1 + at,
            |at: usize| 4 + at,
            |at: usize| 7 + at,
        );
        let mut tasks: Vec<Task> = Vec::new();
        let mut add = |needs: &[usize], reads: &[usize], bytes: u64, is_update: bool| {
            memories.push(memory(bytes, is_update));
            tasks.push(Task {
                in_place: is_update,
                wanted: is_update,
                ..task(needs, reads, memories.len() - 1)
            });
            (tasks.len() - 1, memories.len() - 1)
        };
        let (first, h1) = add(&[], &[x, weight(0), bias(0)], 10, false);
        let (second, h2) = add(&[first], &[h1, weight(1), bias(1)], 10, false);
        let (mut back, mut d) = add(&[second], &[h2, weight(2), bias(2)], 10, false);
        for (at, input, given) in [(2, Some(second), h2), (1, Some(first), h1), (0, None, x)] {
            let (sum, small) = add(&[back], &[d], 1, false);
            add(&[sum], &[small, bias(at)], 1, true);
            let needs: Vec<usize> = [back].into_iter().chain(input).collect();
            let (product, large) = add(&needs, &[d, given], 40, false);
            let (updated, new) = add(&[product], &[large, moment(at)], 40, true);
            add(&[updated], &[new, weight(at)], 40, true);
            if at > 0 {
                let (further, e) = add(&[back], &[d, weight(at)], 10, false);
                (back, d) = add(&[further, needs[1]], &[e, given], 10, false);
            }
        }
        let most = |order: &[usize]| growth(&tasks, &memories, order).1;
        let at_each_place = order_within(&tasks, &memories, 0, i64::MAX).expect("ends");
        assert_eq!(most(&order(&tasks, &memories)), 10 + 10 + 10 + 40);
        assert!(most(&at_each_place) > 10 + 10 + 10 + 40);
    }

    /// A truth of memory 0 ends it, before the product 2 takes as much.
    #[test]
    fn what_ends_something_larger_comes_first() {
        let memories = [
            memory(8, false),
            memory(1, true),
            memory(8, false),
            memory(2, false),
            memory(8, true),
        ];
        let mut tasks = [
            task(&[], &[0], 1),
            task(&[], &[], 2),
            task(&[], &[0], 3),
            task(&[1, 2], &[2, 3], 4),
        ];
        tasks[0].wanted = true;
        (tasks[3].in_place, tasks[3].wanted) = (true, true);
        assert_eq!(order(&tasks, &memories), [0, 2, 1, 3]);
        assert_eq!(peak(&tasks, &memories, &[0, 2, 1, 3]), (1, 8 + 1 + 2));
        assert_eq!(peak(&tasks, &memories, &[1, 0, 2, 3]), (2, 8 + 8 + 1 + 2));
    }

    /// Two truths of one memory, of which neither ends it by itself.
    #[test]
    fn several_end_something_together() {
        let memories = [
            memory(8, false),
            memory(8, false),
            memory(2, false),
            memory(2, false),
            memory(8, true),
        ];
        let mut tasks = [
            task(&[], &[], 1),
            task(&[], &[0], 2),
            task(&[], &[0], 3),
            task(&[0, 1, 2], &[1, 2, 3], 4),
        ];
        (tasks[3].in_place, tasks[3].wanted) = (true, true);
        assert_eq!(order(&tasks, &memories), [1, 2, 0, 3]);
    }

    #[test]
    fn an_operand_is_written_over_when_it_was_read_for_the_last_time() {
        // What is read by a product, and updated.
        let memories = [memory(10, false), memory(1, true), memory(10, true)];
        let mut product = task(&[], &[0], 1);
        product.wanted = true;
        let mut update = task(&[], &[0], 2);
        (update.in_place, update.wanted) = (true, true);
        assert_eq!(order(&[update, product], &memories), [1, 0]);
    }

    #[test]
    fn every_task_runs_once_and_after_what_it_needs() {
        let memories: Vec<Memory> = (0..40).map(|at| memory(at * 7 % 11, at % 5 == 0)).collect();
        let tasks: Vec<Task> = (0..40)
            .map(|at| match at {
                0 | 1 => task(&[], &[], at),
                _ => task(&[at / 2, at - 2], &[at / 2, at - 2], at),
            })
            .collect();
        let order = order(&tasks, &memories);
        let place = |task: usize| order.iter().position(|other| *other == task).expect("runs");
        assert_eq!(order.len(), tasks.len());
        for (at, task) in tasks.iter().enumerate() {
            assert!(task.needs.iter().all(|need| place(*need) < place(at)));
        }
    }
}
