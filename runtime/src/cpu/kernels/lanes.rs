//! Pointwise operations on slots: vector loops for single precision, plain loops (which the compiler vectorises
//! for the instruction set they are instantiated under) for the other kinds.

use super::isa::Isa;
use super::simd::{Kernel, Simd};
use super::slots::{Element, Slots};
use super::vmath;

/// How an operand of an operation over `rows x width` elements is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// One value per element.
    Full,
    /// One value per row.
    Row,
    /// One value per column.
    Col,
    /// One value.
    One,
}

/// An operand: a slot with its spread, or a literal's bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// Values in a slot.
    Slot(u16, Spread),
    /// A literal.
    Imm(Imm),
}

/// A literal in every kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Imm {
    /// As f32.
    pub f32: f32,
    /// As f64.
    pub f64: f64,
    /// As integer.
    pub i64: i64,
    /// As truth value.
    pub bool: u8,
}

/// Picks the literal of a kind.
pub trait FromImm: Element {
    /// The literal as this type.
    fn from_imm(imm: &Imm) -> Self;
}
impl FromImm for f32 {
    fn from_imm(imm: &Imm) -> Self {
        imm.f32
    }
}
impl FromImm for f64 {
    fn from_imm(imm: &Imm) -> Self {
        imm.f64
    }
}
impl FromImm for i64 {
    fn from_imm(imm: &Imm) -> Self {
        imm.i64
    }
}
impl FromImm for u8 {
    fn from_imm(imm: &Imm) -> Self {
        imm.bool
    }
}

/// Extent of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub width: usize,
}

impl Extent {
    /// Elements.
    #[must_use]
    pub fn count(self) -> usize {
        self.rows * self.width
    }
}

/// A resolved operand.
#[derive(Clone, Copy)]
struct Src<T> {
    ptr: *const T,
    row_step: usize,
    scalar: bool,
}

fn resolve<T: FromImm>(slots: &mut Slots, arg: &Arg, imm: &mut T, e: Extent) -> Src<T> {
    match arg {
        Arg::Imm(value) => {
            *imm = T::from_imm(value);
            Src { ptr: std::ptr::from_ref(imm), row_step: 0, scalar: true }
        }
        Arg::Slot(slot, spread) => {
            let (n, row_step, scalar) = match spread {
                Spread::Full => (e.count(), e.width, false),
                Spread::Row => (e.rows, 1, true),
                Spread::Col => (e.width, 0, false),
                Spread::One => (1, 0, true),
            };
            Src { ptr: slots.source::<T>(*slot, n), row_step, scalar }
        }
    }
}

/// Rows and width of the loop: one long row when every operand allows it.
fn shape<T>(e: Extent, sources: &[Src<T>]) -> Extent {
    let flat = |s: &Src<T>| if s.scalar { s.row_step == 0 } else { s.row_step == e.width };
    if e.rows == 1 || sources.iter().all(flat) { Extent { rows: 1, width: e.count() } } else { e }
}

/// Unary operations with a vector form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// See the scalar table for each.
    Neg,
    Abs,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Recip,
    Erf,
    Tanh,
    Sigmoid,
    Sin,
    Cos,
    Floor,
    Ceil,
    Round,
    Trunc,
    /// `x/2 (1 + erf(x / sqrt 2))` in one pass.
    Gelu,
    /// `x * x`.
    Square,
    /// `max(x, 0)`.
    Relu,
    /// `x / (1 + e^-x)`.
    Silu,
    /// `x * min(max(x / 6 + 0.5, 0), 1)`, rounded as these operations are.
    HardSwish,
}

/// Binary operations with a vector form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// See the scalar table for each.
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
}

/// `dst = op(a)` in single precision.
pub fn unary(isa: Isa, slots: &mut Slots, op: Unary, dst: u16, a: u16, n: usize) {
    let (src, dst) = (slots.source::<f32>(a, n), slots.checked::<f32>(dst, n));
    isa.run(UnaryLoop { op, src, dst, n });
}

/// `dst = op(a, b)` in single precision.
pub fn binary(isa: Isa, slots: &mut Slots, op: Binary, dst: u16, a: &Arg, b: &Arg, e: Extent) {
    let (mut ia, mut ib) = (0.0f32, 0.0f32);
    let a = resolve(slots, a, &mut ia, e);
    let b = resolve(slots, b, &mut ib, e);
    let dst = slots.checked::<f32>(dst, e.count());
    let e = shape(e, &[a, b]);
    isa.run(BinaryLoop { op, a, b, dst, e });
}

struct UnaryLoop {
    op: Unary,
    src: *const f32,
    dst: *mut f32,
    n: usize,
}

impl Kernel for UnaryLoop {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        macro_rules! each {
            ($x:ident => $e:expr) => {{
                let mut i = 0;
                while i < self.n {
                    // SAFETY: slots hold `n` elements and a vector's slack past them.
                    unsafe {
                        let $x = s.load(self.src.add(i));
                        s.store(self.dst.add(i), $e);
                    }
                    i += S::N;
                }
            }};
        }
        let zero = s.splat(0.0);
        let one = s.splat(1.0);
        match self.op {
            Unary::Neg => each!(x => s.of_bits(s.iadd(s.bits(x), s.isplat(i32::MIN)))),
            Unary::Abs => each!(x => s.abs(x)),
            Unary::Exp => each!(x => vmath::exp(s, x)),
            Unary::Log => each!(x => vmath::log(s, x)),
            Unary::Sqrt => each!(x => s.sqrt(x)),
            Unary::Rsqrt => each!(x => s.div(one, s.sqrt(x))),
            Unary::Recip => each!(x => s.div(one, x)),
            Unary::Erf => each!(x => vmath::erf(s, x)),
            Unary::Tanh => each!(x => vmath::tanh(s, x)),
            Unary::Sigmoid => each!(x => vmath::sigmoid(s, x)),
            Unary::Sin => each!(x => vmath::sin(s, x)),
            Unary::Cos => each!(x => vmath::cos(s, x)),
            Unary::Floor => each!(x => vmath::floor(s, x)),
            Unary::Ceil => each!(x => vmath::ceil(s, x)),
            Unary::Round => each!(x => s.round(x)),
            Unary::Trunc => each!(x => s.copysign(vmath::floor(s, s.abs(x)), x)),
            Unary::Gelu => each!(x => vmath::gelu(s, x)),
            Unary::Square => each!(x => s.mul(x, x)),
            Unary::Relu => each!(x => s.select(s.eq(x, x), s.max(x, zero), x)),
            Unary::Silu => each!(x => s.mul(x, vmath::sigmoid(s, x))),
            Unary::HardSwish => {
                let (sixth, half) = (s.splat(1.0 / 6.0), s.splat(0.5));
                each!(x => {
                    let line = s.add(s.mul(x, sixth), half);
                    s.mul(x, s.min(s.max(line, zero), one))
                });
            }
        }
    }
}

struct BinaryLoop {
    op: Binary,
    a: Src<f32>,
    b: Src<f32>,
    dst: *mut f32,
    e: Extent,
}

/// A binary lane operation as a type.
pub(super) trait Op2 {
    fn eval<S: Simd>(s: S, a: S::F, b: S::F) -> S::F;
}
macro_rules! op2 {
    ($($name:ident = |$s:ident, $a:ident, $b:ident| $e:expr;)*) => {$(
        pub(super) struct $name;
        impl Op2 for $name {
            #[inline(always)]
            fn eval<S: Simd>($s: S, $a: S::F, $b: S::F) -> S::F { $e }
        }
    )*};
}
op2! {
    AddOp = |s, a, b| s.add(a, b);
    SubOp = |s, a, b| s.sub(a, b);
    MulOp = |s, a, b| s.mul(a, b);
    DivOp = |s, a, b| s.div(a, b);
    // The second operand comes out when the two are unordered, so only a NaN in the first needs care.
    MinOp = |s, a, b| s.select(s.eq(a, a), s.min(a, b), a);
    MaxOp = |s, a, b| s.select(s.eq(a, a), s.max(a, b), a);
}

impl Kernel for BinaryLoop {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.op {
            Binary::Add => self.rows::<S, AddOp>(s),
            Binary::Sub => self.rows::<S, SubOp>(s),
            Binary::Mul => self.rows::<S, MulOp>(s),
            Binary::Div => self.rows::<S, DivOp>(s),
            Binary::Min => self.rows::<S, MinOp>(s),
            Binary::Max => self.rows::<S, MaxOp>(s),
        }
    }
}

impl BinaryLoop {
    #[inline(always)]
    fn rows<S: Simd, O: Op2>(&self, s: S) {
        let Extent { rows, width } = self.e;
        for r in 0..rows {
            // SAFETY: row starts are inside the slots (or stay on a literal), which hold `rows * width` elements
            // and a vector's slack past them; only the last row may use the slack.
            unsafe {
                let (a, b) =
                    (self.a.ptr.add(r * self.a.row_step), self.b.ptr.add(r * self.b.row_step));
                let dst = self.dst.add(r * width);
                let last = r + 1 == rows;
                match (self.a.scalar, self.b.scalar) {
                    (false, false) => row::<S, O, false, false>(s, a, b, dst, width, last),
                    (false, true) => row::<S, O, false, true>(s, a, b, dst, width, last),
                    (true, false) => row::<S, O, true, false>(s, a, b, dst, width, last),
                    (true, true) => row::<S, O, true, true>(s, a, b, dst, width, last),
                }
            }
        }
    }
}

/// # Safety
/// Operands are readable and `dst` writable for `width` elements, or for one where scalar; with `slack`, for a
/// vector more.
#[inline(always)]
unsafe fn row<S: Simd, O: Op2, const SA: bool, const SB: bool>(
    s: S,
    a: *const f32,
    b: *const f32,
    dst: *mut f32,
    width: usize,
    slack: bool,
) {
    // SAFETY: the caller's.
    unsafe {
        let xa = if SA { s.splat(*a) } else { s.splat(0.0) };
        let xb = if SB { s.splat(*b) } else { s.splat(0.0) };
        let vectors = if slack { width.div_ceil(S::N) } else { width / S::N };
        for v in 0..vectors {
            let i = v * S::N;
            let va = if SA { xa } else { s.load(a.add(i)) };
            let vb = if SB { xb } else { s.load(b.add(i)) };
            s.store(dst.add(i), O::eval(s, va, vb));
        }
        let i = vectors * S::N;
        if i < width {
            let n = width - i;
            let va = if SA { xa } else { s.load_n(a.add(i), n) };
            let vb = if SB { xb } else { s.load_n(b.add(i), n) };
            s.store_n(dst.add(i), O::eval(s, va, vb), n);
        }
    }
}

/// `dst[i] = f(a[i])` for any kinds.
pub fn map1<A: FromImm, R: Element>(
    isa: Isa,
    slots: &mut Slots,
    dst: u16,
    a: u16,
    n: usize,
    f: impl Fn(A) -> R,
) {
    let (a, dst) = (slots.source::<A>(a, n), slots.checked::<R>(dst, n));
    isa.run(Map1 { a, dst, n, f });
}

struct Map1<A, R, G> {
    a: *const A,
    dst: *mut R,
    n: usize,
    f: G,
}

impl<A: Copy, R: Copy, G: Fn(A) -> R> Kernel for Map1<A, R, G> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for i in 0..self.n {
            // SAFETY: both slots hold `n` elements.
            unsafe { *self.dst.add(i) = (self.f)(*self.a.add(i)) }
        }
    }
}

/// `dst = f(a, b)` for any kinds.
#[allow(clippy::too_many_arguments, reason = "operands of one operation")]
pub fn map2<A: FromImm, R: Element>(
    isa: Isa,
    slots: &mut Slots,
    dst: u16,
    a: &Arg,
    b: &Arg,
    e: Extent,
    f: impl Fn(A, A) -> R,
) {
    let (mut ia, mut ib) = (A::default(), A::default());
    let a = resolve(slots, a, &mut ia, e);
    let b = resolve(slots, b, &mut ib, e);
    let dst = slots.checked::<R>(dst, e.count());
    let e = shape(e, &[a, b]);
    isa.run(Map2 { a, b, dst, e, f });
}

struct Map2<A, R, G> {
    a: Src<A>,
    b: Src<A>,
    dst: *mut R,
    e: Extent,
    f: G,
}

impl<A: Copy, R: Copy, G: Fn(A, A) -> R> Kernel for Map2<A, R, G> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Extent { rows, width } = self.e;
        for r in 0..rows {
            // SAFETY: as for the vector loops: operands hold what their spread says, `dst` the tile.
            unsafe {
                let (a, b) =
                    (self.a.ptr.add(r * self.a.row_step), self.b.ptr.add(r * self.b.row_step));
                let dst = self.dst.add(r * width);
                match (self.a.scalar, self.b.scalar) {
                    (false, false) => {
                        (0..width).for_each(|i| *dst.add(i) = (self.f)(*a.add(i), *b.add(i)))
                    }
                    (false, true) => {
                        let b = *b;
                        (0..width).for_each(|i| *dst.add(i) = (self.f)(*a.add(i), b));
                    }
                    (true, false) => {
                        let a = *a;
                        (0..width).for_each(|i| *dst.add(i) = (self.f)(a, *b.add(i)));
                    }
                    (true, true) => {
                        let x = (self.f)(*a, *b);
                        (0..width).for_each(|i| *dst.add(i) = x);
                    }
                }
            }
        }
    }
}

/// `dst = mask ? a : b`.
#[allow(clippy::too_many_arguments, reason = "operands of one operation")]
pub fn select<T: FromImm>(
    isa: Isa,
    slots: &mut Slots,
    dst: u16,
    mask: &Arg,
    a: &Arg,
    b: &Arg,
    e: Extent,
) {
    let mut im = 0u8;
    let (mut ia, mut ib) = (T::default(), T::default());
    let m = resolve(slots, mask, &mut im, e);
    let a = resolve(slots, a, &mut ia, e);
    let b = resolve(slots, b, &mut ib, e);
    let dst = slots.checked::<T>(dst, e.count());
    isa.run(Select { m, a, b, dst, e });
}

struct Select<T> {
    m: Src<u8>,
    a: Src<T>,
    b: Src<T>,
    dst: *mut T,
    e: Extent,
}

impl<T: Copy> Kernel for Select<T> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let step = |scalar: bool| usize::from(!scalar);
        let (sm, sa, sb) = (step(self.m.scalar), step(self.a.scalar), step(self.b.scalar));
        let Extent { rows, width } = self.e;
        for r in 0..rows {
            // SAFETY: operands hold what their spread says, `dst` the tile.
            unsafe {
                let m = self.m.ptr.add(r * self.m.row_step);
                let a = self.a.ptr.add(r * self.a.row_step);
                let b = self.b.ptr.add(r * self.b.row_step);
                let dst = self.dst.add(r * width);
                if (sm, sa, sb) == (1, 1, 1) {
                    (0..width).for_each(|i| {
                        *dst.add(i) = if *m.add(i) != 0 { *a.add(i) } else { *b.add(i) }
                    });
                } else if (sm, sa, sb) == (1, 1, 0) {
                    let b = *b;
                    (0..width)
                        .for_each(|i| *dst.add(i) = if *m.add(i) != 0 { *a.add(i) } else { b });
                } else if (sm, sa, sb) == (1, 0, 1) {
                    let a = *a;
                    (0..width)
                        .for_each(|i| *dst.add(i) = if *m.add(i) != 0 { a } else { *b.add(i) });
                } else {
                    for i in 0..width {
                        *dst.add(i) =
                            if *m.add(i * sm) != 0 { *a.add(i * sa) } else { *b.add(i * sb) };
                    }
                }
            }
        }
    }
}

/// Spreads a value over the whole tile.
pub fn expand<T: FromImm>(isa: Isa, slots: &mut Slots, dst: u16, a: &Arg, e: Extent) {
    map2::<T, T>(isa, slots, dst, a, a, e, |x, _| x);
}
