//! Programs over rows: operations that give an element for an element, and totals of rows, which the operations after
//! them know all along the row. A few rows, or a long one, stay in a near cache from the first operation to the last, so
//! that memory is walked over once.

use smallvec::SmallVec;

use crate::chain::{Map, MOST_OPERANDS};
use crate::dispatch::Level;
use crate::input::{Block, Input, Source, BLOCK, WIDEST};
use crate::pool::{self, PART};
use crate::reduce::rows::{totals, Totals, LONGEST, STEP};
use crate::reduce::Reduction;
use crate::view::{typed, typed_mut, Element};

/// In how many parts each thread takes many rows: the first strip of a part is not asked for before it is read.
const PARTS_EACH: usize = 16;

/// Whether there are such programs over rows of so many elements.
pub fn fits(columns: usize) -> bool {
    (2..=LONGEST).contains(&columns)
}

/// What a step computes.
#[derive(Clone)]
pub enum Kind {
    /// An element for an element of each operand.
    Map { map: &'static dyn Map, option: f64 },
    /// The total of a row of f32.
    Total(Reduction),
}

/// An operation of a program.
#[derive(Clone)]
pub struct Step {
    pub kind: Kind,
    /// What the result is. All operands of what is one for a row are one for a row, but for a total's. What has rows reads
    /// results of both forms, and inputs that have rows.
    pub form: Form,
    /// The program's inputs by their numbers, and after them the results of earlier steps.
    pub operands: SmallVec<[usize; MOST_OPERANDS]>,
    /// The width of an element of the result in bytes.
    pub width: usize,
}

/// How many elements there are for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    One,
    Row,
}

/// Steps whose last gives the result.
pub struct Rows {
    columns: usize,
    inputs: Vec<Form>,
    steps: Vec<Placed>,
    /// Rows are walked over so many times: a step that knows a total comes a walk later than what was added up.
    walks: usize,
    /// How many blocks there are for pieces and for one element a row, and of those for all rows of a strip the widths of
    /// their elements.
    pieces: usize,
    ones: usize,
    strips: Vec<usize>,
}

struct Placed {
    step: Step,
    form: Form,
    /// The walk in which it is computed; what is one for a row is computed when the walk has ended.
    walk: usize,
    place: Place,
    /// The block of its element all along the rows, if something reads it there.
    spread: Option<usize>,
}

/// Where a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a block for the piece that is computed.
    Piece(usize),
    /// In a block for all rows, which later walks read.
    Strip(usize),
    /// In a block of one element for a row.
    One(usize),
    Output,
}

impl Rows {
    /// A program over rows of so many elements, of which [`fits`] holds. There is a step at least, and each takes what
    /// comes before it.
    pub fn new(columns: usize, inputs: &[Form], steps: Vec<Step>) -> Self {
        assert!(fits(columns) && !steps.is_empty());
        let mut rows = Rows {
            columns,
            inputs: inputs.to_vec(),
            steps: Vec::with_capacity(steps.len()),
            walks: 0,
            pieces: 0,
            ones: 0,
            strips: Vec::new(),
        };
        for step in steps {
            let placed = rows.placed(step);
            rows.walks = rows.walks.max(placed.walk + 1);
            rows.steps.push(placed);
        }
        rows.delay();
        rows.place();
        rows
    }

    /// A step behind those that are there, of which it is not known yet where it goes.
    fn placed(&self, step: Step) -> Placed {
        assert!(step.operands.len() <= MOST_OPERANDS && step.width <= WIDEST);
        let before = self.inputs.len() + self.steps.len();
        assert!(step.operands.iter().all(|operand| *operand < before));
        let mut forms = step.operands.iter().map(|operand| self.form(*operand));
        let is_right = match (&step.kind, step.form) {
            (Kind::Total(_), form) => {
                form == Form::One && forms.eq([Form::Row]) && step.width == size_of::<f32>()
            }
            (Kind::Map { .. }, Form::Row) => {
                let given = |operand: &usize| self.inputs.get(*operand);
                step.operands
                    .iter()
                    .filter_map(given)
                    .all(|form| *form == Form::Row)
            }
            (Kind::Map { .. }, Form::One) => forms.all(|form| form == Form::One),
        };
        assert!(is_right, "a step reads what it can");
        let has_rows = step.form == Form::Row || matches!(step.kind, Kind::Total(_));
        let walks = step.operands.iter().map(|operand| {
            let earlier = operand.checked_sub(self.inputs.len());
            earlier.map_or(0, |earlier| {
                let earlier = &self.steps[earlier];
                earlier.walk + usize::from(has_rows && earlier.form == Form::One)
            })
        });
        Placed {
            walk: walks.max().unwrap_or(0),
            form: step.form,
            step,
            place: Place::Output,
            spread: None,
        }
    }

    fn form(&self, operand: usize) -> Form {
        match operand.checked_sub(self.inputs.len()) {
            None => self.inputs[operand],
            Some(earlier) => self.steps[earlier].form,
        }
    }

    /// Has rows computed in the walk that reads them first, so that nothing keeps them until then.
    fn delay(&mut self) {
        for at in (0..self.steps.len()).rev() {
            let read = self.readers(at).map(|reader| reader.walk).min();
            if let (Form::Row, Some(walk)) = (self.steps[at].form, read) {
                self.steps[at].walk = walk;
            }
        }
    }

    /// The steps that read the result of a step.
    fn readers(&self, at: usize) -> impl Iterator<Item = &Placed> {
        let number = self.inputs.len() + at;
        let reads = move |one: &&Placed| one.step.operands.contains(&number);
        self.steps.iter().filter(reads)
    }

    /// Finds blocks for the results.
    fn place(&mut self) {
        let last = self.steps.len() - 1;
        let mut free = Vec::new();
        for at in self.in_order() {
            let Placed { form, walk, .. } = self.steps[at];
            let later = self.readers(at).any(|reader| reader.walk > walk);
            let spread =
                form == Form::One && self.readers(at).any(|reader| reader.form == Form::Row);
            let place = match form {
                _ if at == last => Place::Output,
                Form::One => Place::One(self.ones),
                Form::Row if later => Place::Strip(self.strips.len()),
                // Chosen before the operands' are free: a step does not write where it reads.
                Form::Row => Place::Piece(free.pop().unwrap_or_else(|| {
                    self.pieces += 1;
                    self.pieces - 1
                })),
            };
            free.extend(self.ended(at));
            match place {
                Place::Strip(_) => self.strips.push(self.steps[at].step.width),
                Place::One(_) => self.ones += 1,
                Place::Piece(_) | Place::Output => (),
            }
            if spread {
                self.steps[at].spread = Some(self.ones);
                self.ones += 1;
            }
            self.steps[at].place = place;
        }
    }

    /// The steps in the order in which a piece meets them.
    fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.steps.len()).collect();
        order.sort_by_key(|at| self.steps[*at].walk);
        order
    }

    /// The blocks of pieces that a step is the last to read.
    fn ended(&self, at: usize) -> SmallVec<[usize; MOST_OPERANDS]> {
        let mut ended = SmallVec::new();
        for operand in &self.steps[at].step.operands {
            let Some(earlier) = operand.checked_sub(self.inputs.len()) else {
                continue;
            };
            let key = |at: usize| (self.steps[at].walk, at);
            let mut readers = (0..self.steps.len())
                .filter(|other| self.steps[*other].step.operands.contains(operand));
            match self.steps[earlier].place {
                Place::Piece(block)
                    if readers.all(|reader| key(reader) <= key(at)) && !ended.contains(&block) =>
                {
                    ended.push(block)
                }
                _ => (),
            }
        }
        ended
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Computes the result of all rows: of the inputs' axes the last is along the rows of what has rows, and what has one
    /// element for a row has no such axis. What lies in the output's place has rows.
    pub fn run(&self, level: Level, inputs: &[Input], output: &mut [u8]) {
        assert_eq!(inputs.len(), self.inputs.len());
        let strip = self.strip();
        let part = (PART / self.columns)
            .max(output.len() / self.result_width() / (PARTS_EACH * pool::threads()))
            .max(1)
            .next_multiple_of(strip);
        pool::each_part(output, part * self.result_width(), |at, output| {
            self.compute(level, inputs, at * part, output);
        });
    }

    /// How many rows are computed together.
    fn strip(&self) -> usize {
        (BLOCK / self.columns).max(1)
    }

    /// How many bytes the result has for a row.
    fn result_width(&self) -> usize {
        let last = &self.steps[self.steps.len() - 1];
        match last.form {
            Form::One => last.step.width,
            Form::Row => last.step.width * self.columns,
        }
    }

    /// Computes as many rows as the output has, from the row `first` on, on this thread.
    fn compute(&self, level: Level, inputs: &[Input], first: usize, output: &mut [u8]) {
        let width = self.result_width();
        let rows = output.len() / width;
        let strip = self.strip().min(rows);
        let columns = self.columns;
        let sources = inputs.iter().zip(&self.inputs);
        let sources = sources.map(|(input, form)| match form {
            Form::Row => Source::new(input, first * columns, strip * columns),
            Form::One => Source::new(input, first, strip),
        });
        let total = |placed: &Placed| match placed.step.kind {
            Kind::Total(reduction) => Some(totals(reduction)),
            Kind::Map { .. } => None,
        };
        let block = BLOCK.min(strip * columns);
        let one = block.max(strip);
        let whole = |width: &usize| Block::new((strip * columns * width).div_ceil(WIDEST));
        let mut state = State {
            level,
            sources: sources.collect(),
            totals: self.steps.iter().map(total).collect(),
            pieces: (0..self.pieces).map(|_| Block::new(block)).collect(),
            strips: self.strips.iter().map(whole).collect(),
            ones: (0..self.ones).map(|_| Block::new(one)).collect(),
            rows: strip,
        };
        for done in (0..rows).step_by(strip.max(1)) {
            state.rows = strip.min(rows - done);
            let output = &mut output[done * width..(done + state.rows) * width];
            for (source, form) in state.sources.iter_mut().zip(&self.inputs) {
                match form {
                    Form::Row => source.read(done * columns, state.rows * columns),
                    Form::One => source.read(done, state.rows),
                }
            }
            for walk in 0..self.walks {
                self.walk(&mut state, walk, output);
            }
        }
    }

    /// Walks over the rows of a strip once, and computes then what is one for a row.
    fn walk(&self, state: &mut State, walk: usize, output: &mut [u8]) {
        let all = state.rows * self.columns;
        let steps = || {
            self.steps
                .iter()
                .enumerate()
                .filter(move |(_, one)| one.walk == walk)
        };
        let has_rows = |placed: &Placed| {
            placed.form == Form::Row || matches!(placed.step.kind, Kind::Total(_))
        };
        // The walks after the first find the rows in a cache; memory has nothing to do then.
        let asks = walk > 0 && walk + 1 == self.walks;
        for at in (0..all).step_by(BLOCK) {
            let piece = Piece {
                at,
                count: BLOCK.min(all - at),
                is_first: at == 0,
                is_last: at + BLOCK >= all,
            };
            let with_rows = || steps().filter(|(_, placed)| has_rows(placed));
            let parts = with_rows().count();
            for (part, (number, placed)) in with_rows().enumerate() {
                if asks {
                    // A part before each step: what is asked for at once is waited for.
                    let start = piece.count * part / parts;
                    let end = piece.count * (part + 1) / parts;
                    for (source, form) in state.sources.iter().zip(&self.inputs) {
                        if *form == Form::Row {
                            source.ask(all, piece.at + start, end - start);
                        }
                    }
                }
                match placed.step.kind {
                    Kind::Map { map, option } => {
                        self.map(state, placed, (map, option), piece, output)
                    }
                    Kind::Total(_) => self.total(state, number, piece, output),
                }
            }
        }
        for (_, placed) in steps().filter(|(_, placed)| placed.form == Form::One) {
            if let Kind::Map { map, option } = placed.step.kind {
                let piece = Piece {
                    at: 0,
                    count: state.rows,
                    is_first: true,
                    is_last: true,
                };
                self.map(state, placed, (map, option), piece, output);
            }
            if let (Place::One(from), Some(to)) = (placed.place, placed.spread) {
                let count = state.rows;
                let each = self.columns.min(BLOCK);
                let [from, to] = state.ones.get_disjoint_mut([from, to]).expect("two blocks");
                let width = placed.step.width;
                spread(
                    from.bytes(count * width),
                    to.bytes_mut(count * each * width),
                    width,
                );
            }
        }
    }

    fn map(
        &self,
        state: &mut State,
        placed: &Placed,
        (map, option): (&'static dyn Map, f64),
        piece: Piece,
        output: &mut [u8],
    ) {
        let width = placed.step.width;
        let bytes = piece.at * width..(piece.at + piece.count) * width;
        if placed.form == Form::Row {
            self.hold(state, placed, piece, output);
        }
        // No operand is in the block that is written.
        let mut own = match placed.place {
            Place::Output => None,
            place => Some(std::mem::take(state.block(place))),
        };
        let slices: SmallVec<[&[u8]; MOST_OPERANDS]> = placed
            .step
            .operands
            .iter()
            .map(|operand| self.operand(state, *operand, placed.form, piece))
            .collect();
        let to = match (&mut own, placed.place) {
            (Some(block), Place::Strip(_)) => &mut block.bytes_mut(bytes.end)[bytes.start..],
            (Some(block), _) => block.bytes_mut(piece.count * width),
            (None, _) => &mut output[bytes],
        };
        map.run(state.level, &slices, to, option);
        drop(slices);
        if let Some(block) = own {
            *state.block(placed.place) = block;
        }
    }

    /// Takes a piece of what is added up, or all of several rows.
    fn total(&self, state: &mut State, number: usize, piece: Piece, output: &mut [u8]) {
        let placed = &self.steps[number];
        self.hold(state, placed, piece, output);
        let (Some(mut totals), level) = (state.totals[number].take(), state.level) else {
            return;
        };
        let mut own = match placed.place {
            Place::Output => None,
            place => Some(std::mem::take(state.block(place))),
        };
        let count = state.rows * size_of::<f32>();
        let to = typed_mut::<f32>(match &mut own {
            Some(block) => block.bytes_mut(count),
            None => output,
        });
        let x = typed::<f32>(self.operand(state, placed.step.operands[0], Form::Row, piece));
        if self.columns <= BLOCK {
            totals.of_rows(level, x, to);
        } else {
            if piece.is_first {
                totals.begin();
            }
            if piece.is_last {
                to[0] = totals.end(level, x);
            } else {
                totals.take(level, x);
            }
        }
        state.totals[number] = Some(totals);
        if let Some(block) = own {
            *state.block(placed.place) = block;
        }
    }

    /// Keeps a piece of what is in the output's place, as far as the step reads it.
    fn hold(&self, state: &mut State, placed: &Placed, piece: Piece, output: &[u8]) {
        let width = output.len() / (state.rows * self.columns);
        let held = &output[piece.at * width..(piece.at + piece.count) * width];
        for &operand in &placed.step.operands {
            if operand < self.inputs.len() {
                state.sources[operand].hold(piece.count, held);
            }
        }
    }

    /// The elements of an operand for a step of this form.
    fn operand<'a>(&self, state: &'a State, operand: usize, form: Form, piece: Piece) -> &'a [u8] {
        let Some(earlier) = operand.checked_sub(self.inputs.len()) else {
            return state.sources[operand].piece(piece.at, piece.count);
        };
        let earlier = &self.steps[earlier];
        let width = earlier.step.width;
        match (earlier.place, earlier.spread, form) {
            (Place::One(_), Some(spread), Form::Row) => {
                state.ones[spread].bytes(piece.count * width)
            }
            (Place::One(block), ..) => state.ones[block].bytes(piece.count * width),
            (Place::Piece(block), ..) => state.pieces[block].bytes(piece.count * width),
            (Place::Strip(block), ..) => {
                let end = (piece.at + piece.count) * width;
                &state.strips[block].bytes(end)[piece.at * width..]
            }
            (Place::Output, ..) => unreachable!("nothing reads the result"),
        }
    }
}

/// A piece of a strip, or one element for each of its rows.
#[derive(Clone, Copy)]
struct Piece {
    at: usize,
    count: usize,
    is_first: bool,
    is_last: bool,
}

/// What a thread has while it computes.
struct State<'a> {
    level: Level,
    sources: SmallVec<[Source<'a>; 4]>,
    totals: SmallVec<[Option<Box<dyn Totals>>; 4]>,
    pieces: SmallVec<[Block; 4]>,
    strips: SmallVec<[Block; 4]>,
    ones: SmallVec<[Block; 4]>,
    /// How many rows the strip has.
    rows: usize,
}

impl State<'_> {
    fn block(&mut self, place: Place) -> &mut Block {
        match place {
            Place::Piece(block) => &mut self.pieces[block],
            Place::Strip(block) => &mut self.strips[block],
            Place::One(block) => &mut self.ones[block],
            Place::Output => unreachable!("the output is no block"),
        }
    }
}

/// Each element as many times as there is room for.
fn spread(elements: &[u8], to: &mut [u8], width: usize) {
    fn spread_as<T: Element>(elements: &[u8], to: &mut [u8]) {
        let elements = typed::<T>(elements);
        let to = typed_mut::<T>(to);
        let each = to.len() / elements.len();
        for (to, element) in to.chunks_exact_mut(each).zip(elements) {
            to.fill(*element);
        }
    }
    match width {
        1 => spread_as::<u8>(elements, to),
        2 => spread_as::<u16>(elements, to),
        4 => spread_as::<u32>(elements, to),
        _ => spread_as::<u64>(elements, to),
    }
}

const _: () = assert!(BLOCK.is_multiple_of(STEP) && BLOCK >= 2 * STEP && LONGEST > BLOCK);
