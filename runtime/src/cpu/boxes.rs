//! Splits of an iteration space that make index expressions affine and guards constant.
//!
//! Concatenation, padding, window partitions and resampling reach a kernel as guards, floor divisions and remainders
//! over its axes. Under bound symbols an axis that is divided is replaced by a quotient and a remainder axis, and the
//! space is cut into boxes where every guard is true everywhere or false everywhere and every division is affine; each
//! box gets a body of its own, without what does not concern it. What cannot be split stays as it is.

use std::collections::BTreeSet;

use smallvec::SmallVec;
use tgc_ir::DType;
use tgc_ir::dim::{Atom, Dim, Symbol};
use tgc_ir::kernel_program::{
    Epilogue, Guard, InstKind, ScalarConst, as_axis, as_value, axis, axis_symbol,
};
use tgc_ir::scalar::ScalarOp;

use super::index::{Symbols, bind};

/// Points over which an expression is looked at.
const GRID: usize = 1 << 14;
/// Boxes of one kernel.
const BOXES: usize = 96;
/// Points that a box has on average, at least.
const POINTS: usize = 64;

/// Cuts of an axis that depend on other axes.
const UNEVEN: usize = 3;

/// A part of a space: extents, and code over its own axes.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Extents of its axes.
    pub(super) extents: Vec<i64>,
    /// Code over them.
    pub(super) epilogue: Epilogue,
}

/// Splits a space; one part, the whole, when nothing is gained.
pub(super) fn split(extents: &[i64], epilogue: &Epilogue, symbols: &Symbols<'_>) -> Vec<Part> {
    let bound = map_dims(epilogue, &|d| bind(d, symbols));
    let whole = Part { extents: extents.to_vec(), epilogue: bound };
    if whole.conditions().is_empty() || extents.contains(&0) {
        return vec![whole];
    }
    let divided = divide(whole.clone());
    let cuts = divided.cuts();
    let boxes: usize = cuts.iter().map(|c| c.len() + 1).product();
    let points: i64 = extents.iter().product();
    if boxes > BOXES || (boxes > 1 && points as usize / boxes < POINTS) {
        return vec![whole];
    }
    divided.boxes(&cuts).map(|b| divided.part(&b)).collect()
}

/// A condition or division whose behaviour decides where to cut.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    /// `0 <= value < below`, as value and bound.
    Inside(Dim, Dim),
    /// A division, remainder, minimum or maximum.
    Piecewise(Dim),
}

/// A range of each axis.
type Ranges = Vec<(i64, i64)>;

impl Part {
    /// Everything in the body that is not affine in the axes alone, without what reads computed values.
    fn conditions(&self) -> BTreeSet<Condition> {
        let mut out = BTreeSet::new();
        let mut piecewise = |dim: &Dim| {
            atoms(dim, &mut |d| {
                out.insert(Condition::Piecewise(d));
            });
        };
        let body = &self.epilogue.body;
        body.dims()
            .chain(self.epilogue.stores.iter().flat_map(|s| &s.index))
            .for_each(&mut piecewise);
        for inst in &body.insts {
            if let InstKind::Load(load) = &inst.kind {
                for g in &load.guards {
                    out.insert(Condition::Inside(g.value.clone(), g.below.clone()));
                }
            }
        }
        out.retain(|c| c.axes().is_some_and(|axes| !axes.is_empty()));
        out
    }

    /// Axes along which some element lies neither at a fixed stride nor inside a box: those that computed indices and
    /// remaining divisions depend on.
    pub(super) fn ragged(&self) -> BTreeSet<usize> {
        let body = &self.epilogue.body;
        // Axes that each result depends on.
        let mut behind: Vec<BTreeSet<usize>> = Vec::new();
        for inst in &body.insts {
            let of = |values: &[u32]| {
                values.iter().flat_map(|v| &behind[*v as usize]).copied().collect::<BTreeSet<_>>()
            };
            behind.push(match &inst.kind {
                InstKind::Index(dim) => axes_behind(dim, &behind),
                InstKind::Load(load) => {
                    let guards = load.guards.iter().flat_map(|g| [&g.value, &g.below]);
                    load.index.iter().chain(guards).flat_map(|d| axes_behind(d, &behind)).collect()
                }
                InstKind::Scalar(_, args) => of(args),
                InstKind::Cast(v) | InstKind::Bitcast(v) | InstKind::Reduce(_, v) => of(&[*v]),
                InstKind::Const(_) | InstKind::Slot(_) => BTreeSet::new(),
            });
        }
        let mut out = BTreeSet::new();
        let loads = body.insts.iter().filter_map(|inst| match &inst.kind {
            InstKind::Load(load) => Some(load),
            _ => None,
        });
        let places =
            loads.flat_map(|l| &l.index).chain(self.epilogue.stores.iter().flat_map(|s| &s.index));
        for dim in places {
            let values = dim.symbols().iter().filter_map(as_value).collect::<Vec<u32>>();
            out.extend(values.iter().flat_map(|v| &behind[*v as usize]));
            atoms(dim, &mut |d| out.extend(axes_behind(&d, &behind)));
        }
        out
    }

    /// Per axis: points at which a new box begins.
    fn cuts(&self) -> Vec<Vec<i64>> {
        let mut cuts = vec![BTreeSet::new(); self.extents.len()];
        for condition in self.conditions() {
            let Some(grid) = Grid::new(&condition, &self.extents) else { continue };
            for (at, &a) in grid.axes.iter().enumerate() {
                cuts[a].extend(grid.cuts(at, matches!(condition, Condition::Inside(..))));
            }
        }
        cuts.into_iter().map(|c| c.into_iter().collect()).collect()
    }

    /// The boxes between cuts, row-major.
    fn boxes<'a>(&'a self, cuts: &'a [Vec<i64>]) -> impl Iterator<Item = Ranges> + 'a {
        let count: usize = cuts.iter().map(|c| c.len() + 1).product();
        (0..count).map(|mut i| {
            let mut ranges = vec![(0, 0); cuts.len()];
            for (a, c) in cuts.iter().enumerate().rev() {
                let at = i % (c.len() + 1);
                i /= c.len() + 1;
                let start = if at == 0 { 0 } else { c[at - 1] };
                ranges[a] = (start, c.get(at).copied().unwrap_or(self.extents[a]));
            }
            ranges
        })
    }

    /// The body over one box.
    fn part(&self, ranges: &Ranges) -> Part {
        let extents: Vec<i64> = ranges.iter().map(|r| r.1 - r.0).collect();
        let shifted = self.epilogue.with_axes(&|n| axis(n) + Dim::Const(ranges[n].0));
        let mut epilogue = map_dims(&shifted, &|d| affine(d, &extents));
        settle(&mut epilogue, &extents);
        Part { extents, epilogue }
    }
}

impl Condition {
    /// Axes it depends on; `None` when it depends on a computed value or an unbound symbol too.
    fn axes(&self) -> Option<Vec<usize>> {
        let symbols = match self {
            Condition::Inside(value, below) => &value.symbols() | &below.symbols(),
            Condition::Piecewise(dim) => dim.symbols(),
        };
        let mut axes = symbols.iter().map(as_axis).collect::<Option<Vec<usize>>>()?;
        axes.sort_unstable();
        Some(axes)
    }

    fn value(&self, at: &dyn Fn(&Symbol) -> Option<i64>) -> Option<i64> {
        match self {
            Condition::Inside(value, below) => {
                let value = value.eval(at).ok()?;
                Some(i64::from(value >= 0 && value < below.eval(at).ok()?))
            }
            Condition::Piecewise(dim) => dim.eval(at).ok(),
        }
    }
}

/// Values of an expression over the axes it depends on, row-major.
struct Grid {
    axes: Vec<usize>,
    extents: Vec<i64>,
    values: Vec<i64>,
}

impl Grid {
    /// `None` when there are too many points, or a value is not defined.
    fn new(condition: &Condition, extents: &[i64]) -> Option<Grid> {
        let axes = condition.axes()?;
        let extents: Vec<i64> =
            axes.iter().map(|&a| extents.get(a).copied()).collect::<Option<_>>()?;
        let count: i64 = extents.iter().product();
        if count as usize > GRID {
            return None;
        }
        let names: Vec<Symbol> = axes.iter().map(|&a| axis_symbol(a)).collect();
        let mut at: SmallVec<[i64; 6]> = SmallVec::from_elem(0, axes.len());
        let mut values = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let lookup = |s: &Symbol| names.iter().position(|n| n == s).map(|i| at[i]);
            values.push(condition.value(&lookup)?);
            for (x, &extent) in at.iter_mut().zip(&extents).rev() {
                *x += 1;
                if *x < extent {
                    break;
                }
                *x = 0;
            }
        }
        Some(Grid { axes, extents, values })
    }

    /// Steps from point `x` to `x + 1` of axis number `a`, over all other points: the one step when it is the same.
    fn step(&self, a: usize, x: i64) -> Option<i64> {
        let inner: i64 = self.extents[a + 1..].iter().product();
        let outer: i64 = self.extents[..a].iter().product();
        let row = self.extents[a] * inner;
        let mut steps = (0..outer)
            .flat_map(|o| (0..inner).map(move |i| (o * row + x * inner + i) as usize))
            .map(|at| self.values[at + inner as usize] - self.values[at]);
        let first = steps.next()?;
        steps.all(|s| s == first).then_some(first)
    }

    /// Where axis number `a` has to be cut so that the expression is affine (constant, if a truth) along it: wherever
    /// the step changes or depends on the other axes. Nothing when it depends on them in many places, because then the
    /// expression is no product of pieces.
    fn cuts(&self, a: usize, truth: bool) -> Vec<i64> {
        let steps: Vec<Option<i64>> = (0..self.extents[a] - 1).map(|x| self.step(a, x)).collect();
        if steps.iter().filter(|s| s.is_none()).count() > UNEVEN {
            return Vec::new();
        }
        let mut cuts = Vec::new();
        // The step that the current stretch goes on with.
        let mut slope: Option<i64> = truth.then_some(0);
        for (x, &step) in steps.iter().enumerate() {
            let next = steps.get(x + 1).copied().flatten();
            match (slope, step) {
                (Some(s), Some(step)) if s == step => {}
                // A step larger than the next one is a jump between stretches.
                (None, Some(step)) if next.is_none_or(|n| step.abs() <= n.abs()) => {
                    slope = Some(step);
                }
                _ => {
                    cuts.push(x as i64 + 1);
                    slope = truth.then_some(0);
                }
            }
        }
        cuts
    }

    /// The affine form over its axes, when it has one.
    fn affine(&self) -> Option<Dim> {
        let base = *self.values.first()?;
        let mut form = Dim::Const(base);
        let mut slopes: SmallVec<[i64; 6]> = SmallVec::new();
        for (a, &number) in self.axes.iter().enumerate() {
            let inner: i64 = self.extents[a + 1..].iter().product();
            let slope = if self.extents[a] > 1 { self.values[inner as usize] - base } else { 0 };
            slopes.push(slope);
            form = form + axis(number) * Dim::Const(slope);
        }
        let mut at: SmallVec<[i64; 6]> = SmallVec::from_elem(0, self.axes.len());
        for &value in &self.values {
            let expected = at.iter().zip(&slopes).fold(base, |sum, (x, s)| sum + x * s);
            if value != expected {
                return None;
            }
            for (x, &extent) in at.iter_mut().zip(&self.extents).rev() {
                *x += 1;
                if *x < extent {
                    break;
                }
                *x = 0;
            }
        }
        Some(form)
    }
}

/// Replaces axes that are divided by quotient and remainder, the largest divisors first.
fn divide(mut part: Part) -> Part {
    // Each division makes an axis shorter, and every axis is shorter than its extent in bits of divisions.
    for _ in 0..8 {
        let Some((a, by)) = divisor(&part) else { break };
        let place = |n: usize| match n {
            n if n < a => axis(n),
            n if n == a => axis(a) * Dim::Const(by) + axis(a + 1),
            n => axis(n + 1),
        };
        part.epilogue = part.epilogue.with_axes(&place);
        part.extents[a] /= by;
        part.extents.insert(a + 1, by);
        let extents = part.extents.clone();
        // Remainders of the new axes that are themselves.
        part.epilogue = map_dims(&part.epilogue, &|d| affine(d, &extents));
    }
    part
}

/// An axis and a number that divides its extent, by which it is divided somewhere.
fn divisor(part: &Part) -> Option<(usize, i64)> {
    let mut found: Option<(usize, i64)> = None;
    for condition in part.conditions() {
        let Condition::Piecewise(dim) = condition else { continue };
        let polynomial = dim.polynomial();
        let Some(([Atom::FloorDiv(value, by) | Atom::Mod(value, by)], 1)) =
            polynomial.terms.first().map(|(m, c)| (m.as_slice(), *c))
        else {
            continue;
        };
        let (Some(symbol), Some(by)) = (value.as_symbol(), by.as_const()) else { continue };
        let Some(a) = as_axis(symbol) else { continue };
        let fits = by > 1 && by < part.extents[a] && part.extents[a] % by == 0;
        if fits && found.is_none_or(|f| f.1 < by) {
            found = Some((a, by));
        }
    }
    found
}

/// Axes that an expression depends on, through computed values too.
fn axes_behind(dim: &Dim, behind: &[BTreeSet<usize>]) -> BTreeSet<usize> {
    let mut out = BTreeSet::new();
    for s in dim.symbols() {
        out.extend(as_axis(&s));
        out.extend(as_value(&s).into_iter().flat_map(|v| &behind[v as usize]));
    }
    out
}

/// Calls `visit` with every piecewise atom of an expression, inner ones first.
fn atoms(dim: &Dim, visit: &mut dyn FnMut(Dim)) {
    for (monomial, _) in &dim.polynomial().terms {
        for atom in monomial {
            if let Some((a, b, make)) = parts_of(atom) {
                atoms(a, visit);
                atoms(b, visit);
                visit(make(a, b));
            }
        }
    }
}

type Make = fn(&Dim, &Dim) -> Dim;

/// Operands of a piecewise atom, and what makes one of operands.
fn parts_of(atom: &Atom) -> Option<(&Dim, &Dim, Make)> {
    Some(match atom {
        Atom::Symbol(_) => return None,
        Atom::FloorDiv(a, b) => (a, b, |a, b| a.floor_div(b)),
        Atom::Mod(a, b) => (a, b, |a, b| a.modulo(b)),
        Atom::Min(a, b) => (a, b, |a, b| a.minimum(b)),
        Atom::Max(a, b) => (a, b, |a, b| a.maximum(b)),
    })
}

/// The same expression with every atom replaced that is affine over axes of these extents.
fn affine(dim: &Dim, extents: &[i64]) -> Dim {
    if dim.as_const().is_some() || dim.as_symbol().is_some() {
        return dim.clone();
    }
    let polynomial = dim.polynomial();
    let mut sum = Dim::Const(polynomial.constant);
    for (monomial, coefficient) in &polynomial.terms {
        let mut term = Dim::Const(*coefficient);
        for atom in monomial {
            term = term * affine_atom(atom, extents);
        }
        sum = sum + term;
    }
    sum
}

fn affine_atom(atom: &Atom, extents: &[i64]) -> Dim {
    let Some((a, b, make)) = parts_of(atom) else {
        let Atom::Symbol(symbol) = atom else { unreachable!("other atoms have parts") };
        return Dim::from(symbol);
    };
    let whole = make(a, b);
    let form = Grid::new(&Condition::Piecewise(whole), extents).and_then(|g| g.affine());
    form.unwrap_or_else(|| make(&affine(a, extents), &affine(b, extents)))
}

fn map_dims(epilogue: &Epilogue, map: &dyn Fn(&Dim) -> Dim) -> Epilogue {
    let mut out = epilogue.clone();
    for inst in &mut out.body.insts {
        match &mut inst.kind {
            InstKind::Index(dim) => *dim = map(dim),
            InstKind::Load(load) => {
                load.index.iter_mut().for_each(|d| *d = map(d));
                for g in &mut load.guards {
                    (g.value, g.below) = (map(&g.value), map(&g.below));
                }
            }
            _ => {}
        }
    }
    out.stores.iter_mut().flat_map(|s| &mut s.index).for_each(|d| *d = map(d));
    out
}

/// What is known of an integer or truth value in a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range(i64, i64);

/// Drops guards that always hold, loads whose guards never do, and selections that are decided.
fn settle(epilogue: &mut Epilogue, extents: &[i64]) {
    let insts = &mut epilogue.body.insts;
    let mut ranges: Vec<Option<Range>> = vec![None; insts.len()];
    // What stands for each result.
    let mut stands: Vec<u32> = (0..insts.len() as u32).collect();
    for i in 0..insts.len() {
        let kind = replace_operands(&insts[i].kind, &stands);
        let known = |v: u32| ranges[v as usize];
        let (kind, range) = match kind {
            InstKind::Index(ref dim) => {
                let range = range_of(dim, extents);
                (kind, range)
            }
            InstKind::Const(ScalarConst::Int(c)) => (kind, Some(Range(c, c))),
            InstKind::Scalar(op, ref args) => {
                let range = decide(op, args, &known);
                match (op, known(args[0])) {
                    (ScalarOp::Select, Some(Range(1, 1))) => stands[i] = args[1],
                    (ScalarOp::Select, Some(Range(0, 0))) => stands[i] = args[2],
                    _ => {}
                }
                (kind, range)
            }
            InstKind::Load(mut load) => {
                let truth = |g: &Guard| {
                    let (value, below) = (range_of(&g.value, extents), range_of(&g.below, extents));
                    value.zip(below).map_or((false, false), |(v, b)| {
                        (v.0 >= 0 && v.1 < b.0, v.1 < 0 || v.0 >= b.1)
                    })
                };
                let never = load.guards.iter().any(|g| truth(g).1);
                load.guards.retain(|g| !truth(g).0);
                match (never, load.otherwise) {
                    (true, Some(other)) => {
                        stands[i] = other;
                        (InstKind::Load(load), None)
                    }
                    (true, None) => (InstKind::Const(zero(insts[i].dtype)), None),
                    (false, _) => (InstKind::Load(load), None),
                }
            }
            other => (other, None),
        };
        insts[i].kind = kind;
        ranges[i] = range;
        if stands[i] != i as u32 {
            stands[i] = stands[stands[i] as usize];
        }
    }
    for store in &mut epilogue.stores {
        store.value = stands[store.value as usize];
        store.index.iter_mut().for_each(|d| *d = replace_values(d, &stands));
    }
}

fn zero(dtype: DType) -> ScalarConst {
    if dtype.is_float() { ScalarConst::float(0.0) } else { ScalarConst::Int(0) }
}

fn replace_values(dim: &Dim, stands: &[u32]) -> Dim {
    dim.substitute(&|s| {
        as_value(s).map(|v| tgc_ir::kernel_program::value_index(stands[v as usize]))
    })
}

fn replace_operands(kind: &InstKind, stands: &[u32]) -> InstKind {
    let at = |v: &u32| stands[*v as usize];
    match kind {
        InstKind::Scalar(op, args) => InstKind::Scalar(*op, args.iter().map(at).collect()),
        InstKind::Cast(v) => InstKind::Cast(at(v)),
        InstKind::Bitcast(v) => InstKind::Bitcast(at(v)),
        InstKind::Reduce(op, v) => InstKind::Reduce(*op, at(v)),
        InstKind::Index(dim) => InstKind::Index(replace_values(dim, stands)),
        InstKind::Load(load) => {
            let mut load = load.clone();
            load.index.iter_mut().for_each(|d| *d = replace_values(d, stands));
            for g in &mut load.guards {
                g.value = replace_values(&g.value, stands);
                g.below = replace_values(&g.below, stands);
            }
            load.otherwise = load.otherwise.as_ref().map(at);
            InstKind::Load(load)
        }
        InstKind::Const(_) | InstKind::Slot(_) => kind.clone(),
    }
}

/// The values of an affine expression over the box.
fn range_of(dim: &Dim, extents: &[i64]) -> Option<Range> {
    let parts = super::index::split(dim, extents.len()).ok()?;
    let (low, high) = parts.rest.is_none().then(|| parts.affine.range(extents))?;
    Some(Range(low, high))
}

/// The truth of a comparison or conjunction, when it is the same everywhere.
fn decide(op: ScalarOp, args: &[u32], known: &dyn Fn(u32) -> Option<Range>) -> Option<Range> {
    let yes = Some(Range(1, 1));
    let no = Some(Range(0, 0));
    let pair = || known(args[0]).zip(args.get(1).and_then(|&b| known(b)));
    match op {
        ScalarOp::Le => pair().and_then(|(a, b)| match () {
            () if a.1 <= b.0 => yes,
            () if a.0 > b.1 => no,
            () => None,
        }),
        ScalarOp::Lt => pair().and_then(|(a, b)| match () {
            () if a.1 < b.0 => yes,
            () if a.0 >= b.1 => no,
            () => None,
        }),
        ScalarOp::And => match (known(args[0]), known(args[1])) {
            (Some(Range(1, 1)), Some(Range(1, 1))) => yes,
            (Some(Range(0, 0)), _) | (_, Some(Range(0, 0))) => no,
            _ => None,
        },
        _ => None,
    }
}
