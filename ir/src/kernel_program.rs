//! Kernel programs: what one kernel computes, for any machine.
//!
//! A program has buffers with explicit symbolic strides and one structured
//! *anchor* whose slots hold scalar [`Body`]s. The anchor says how values flow
//! (a contraction, a row reduction, an attention …); the bodies say what is
//! computed per element. [`crate::eval`] defines every anchor; devices start
//! here and never rediscover structure.
//!
//! Conventions:
//! * A body's *axes* are symbols `$0`, `$1`, … in the order its anchor states;
//!   numbering restarts for each body.
//! * Values loaded or computed earlier in the body (integers) can be used in
//!   index expressions as `@n`, n being the instruction index.
//! * Every instruction has a dtype; its result is a value of that dtype.
//!   Arithmetic on narrow floats does not occur: lowering inserts casts.
//! * Extents of zero are legal: nothing is stored (a reduction over nothing
//!   gives its neutral element).

mod walk;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::scalar::ScalarOp;

/// One kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KernelProgram {
    /// Readable name, unique within an engine, a C identifier.
    pub name: String,
    /// Arguments, in the order in which a launch binds them.
    pub buffers: Vec<Buffer>,
    /// Structure and bodies.
    pub anchor: Anchor,
}

/// How a kernel uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Access {
    /// Only read.
    Read,
    /// Only written, every element that a store names.
    Write,
    /// Read and written by the same kernel (state updated in place).
    ReadWrite,
}

/// An argument: a strided tensor in device memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Buffer {
    /// Use.
    pub access: Access,
    /// Element type as stored.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<Dim>,
    /// Distance between neighbours along each axis, in elements; independent
    /// of the extents, so that capacities and padding work.
    pub strides: Vec<Dim>,
    /// True when the contents are weights: the same in every run, so that a
    /// device may repack them once.
    pub constant: bool,
}

impl Buffer {
    /// Row-major strides for extents.
    pub fn dense_strides(shape: &[Dim]) -> Vec<Dim> {
        let mut strides = vec![Dim::ONE; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i].clone() * shape[i].clone();
        }
        strides
    }

    /// Offset in elements of an index.
    pub fn offset(&self, index: &[Dim]) -> Dim {
        index.iter().zip(&self.strides).fold(Dim::ZERO, |sum, (i, s)| sum + i.clone() * s.clone())
    }
}

/// The symbol of axis `n` of a body.
pub fn axis_symbol(n: usize) -> Symbol {
    Symbol::new(format!("${n}"))
}

/// Axis `n` of a body as an index expression.
pub fn axis(n: usize) -> Dim {
    Dim::from(&axis_symbol(n))
}

/// The result of instruction `n` as an index expression.
pub fn value_index(n: u32) -> Dim {
    Dim::symbol(format!("@{n}"))
}

/// The axis number of an axis symbol.
pub fn as_axis(symbol: &Symbol) -> Option<usize> {
    symbol.name().strip_prefix('$')?.parse().ok()
}

/// The instruction number of a value symbol.
pub fn as_value(symbol: &Symbol) -> Option<u32> {
    symbol.name().strip_prefix('@')?.parse().ok()
}

/// A scalar constant: the bits of an f64 for floats, else the integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScalarConst {
    /// Bits of an f64.
    Float(u64),
    /// An integer or bool.
    Int(i64),
}

impl ScalarConst {
    /// A float constant.
    pub fn float(x: f64) -> Self {
        ScalarConst::Float(x.to_bits())
    }

    /// As f64.
    pub fn as_f64(self) -> f64 {
        match self {
            ScalarConst::Float(bits) => f64::from_bits(bits),
            ScalarConst::Int(i) => i as f64,
        }
    }

    /// As the reference's value.
    pub fn value(self) -> crate::scalar::Value {
        match self {
            ScalarConst::Float(bits) => crate::scalar::Value::Float(f64::from_bits(bits)),
            ScalarConst::Int(i) => crate::scalar::Value::Int(i128::from(i)),
        }
    }

    /// From the reference's value.
    pub fn from_value(value: crate::scalar::Value) -> Self {
        match value {
            crate::scalar::Value::Float(x) => ScalarConst::float(x),
            crate::scalar::Value::Int(i) => ScalarConst::Int(i as i64),
        }
    }
}

impl std::fmt::Display for ScalarConst {
    /// Floats always carry a point, exponent or name, integers never do.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ScalarConst::Int(i) => write!(f, "{i}"),
            ScalarConst::Float(bits) => {
                let x = f64::from_bits(*bits);
                if x.is_nan() {
                    f.write_str(if x.is_sign_negative() { "-nan" } else { "nan" })
                } else {
                    write!(f, "{x:?}")
                }
            }
        }
    }
}

/// The text is no number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no number")]
pub struct ConstParseError(String);

impl std::str::FromStr for ScalarConst {
    type Err = ConstParseError;
    fn from_str(text: &str) -> Result<Self, ConstParseError> {
        if let Ok(i) = text.parse::<i64>() {
            return Ok(ScalarConst::Int(i));
        }
        text.parse::<f64>()
            .map(|x| ScalarConst::float(if text == "-nan" { -f64::NAN } else { x }))
            .map_err(|_| ConstParseError(text.to_owned()))
    }
}

crate::text_serde!(ScalarConst);

/// Straight-line scalar code in SSA form over the axes of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Body {
    /// Instructions; operands refer to earlier ones by index.
    pub insts: Vec<Inst>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Inst {
    /// Type of the result.
    pub dtype: DType,
    /// What it computes.
    pub kind: InstKind,
}

/// Kinds of instruction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum InstKind {
    /// A literal.
    Const(ScalarConst),
    /// An index expression as an i64 value.
    Index(Dim),
    /// A value that the anchor supplies (see each anchor).
    Slot(u32),
    /// An element of a buffer (dtype = the buffer's).
    Load(Load),
    /// A row of the scalar table on earlier results.
    Scalar(ScalarOp, SmallVec<[u32; 3]>),
    /// Conversion of an earlier result to this instruction's dtype: floats
    /// round to nearest even, to integers truncate and saturate, integers wrap.
    Cast(u32),
    /// The bits of an earlier result, stored in its dtype, read as this
    /// instruction's dtype of equal width.
    Bitcast(u32),
    /// Only in [`Anchor::Rows`]: an earlier result reduced over all inner axes;
    /// the result is the same for every element of the row.
    Reduce(ReduceOp, u32),
}

/// Reading an element.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Load {
    /// Which argument.
    pub buffer: u32,
    /// One expression per axis of the buffer.
    pub index: Vec<Dim>,
    /// All must hold for the element to be read.
    pub guards: Vec<Guard>,
    /// The result when a guard fails (an earlier result of the same dtype);
    /// zero when absent.
    pub otherwise: Option<u32>,
}

/// `0 <= value < below`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Guard {
    /// Checked expression.
    pub value: Dim,
    /// Exclusive upper bound.
    pub below: Dim,
}

/// Writing an element.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Store {
    /// Which argument.
    pub buffer: u32,
    /// One expression per axis of the buffer.
    pub index: Vec<Dim>,
    /// Result that is stored; its dtype is the buffer's.
    pub value: u32,
}

/// Code that reads operands for an anchor: `value` of `body` per point.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Operand {
    /// Code over the axes that the anchor states.
    pub body: Body,
    /// The result that the anchor uses.
    pub value: u32,
}

impl Operand {
    /// When the operand is one plain unguarded load (possibly followed by
    /// casts), that load.
    pub fn plain_load(&self) -> Option<&Load> {
        let mut at = self.value;
        loop {
            match &self.body.insts.get(at as usize)?.kind {
                InstKind::Cast(from) => at = *from,
                InstKind::Load(load) if load.guards.is_empty() => return Some(load),
                _ => return None,
            }
        }
    }
}

/// Code that consumes an anchor's results and stores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epilogue {
    /// Code over the axes that the anchor states; slots as the anchor states.
    pub body: Body,
    /// What is written.
    pub stores: Vec<Store>,
}

/// Reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReduceOp {
    /// Sum; neutral 0.
    Sum,
    /// Product; neutral 1.
    Prod,
    /// Largest; NaN if any is; neutral the dtype's lowest (−inf for floats).
    Max,
    /// Smallest; NaN if any is; neutral the dtype's largest (+inf for floats).
    Min,
    /// Logical and; neutral true.
    All,
    /// Logical or; neutral false.
    Any,
    /// Linear index (i64, over the inner axes row-major) of the first largest.
    ArgMax,
    /// Linear index of the first smallest.
    ArgMin,
    /// Linear index of the last largest.
    ArgMaxLast,
    /// Linear index of the last smallest.
    ArgMinLast,
}

impl ReduceOp {
    /// Every reduction.
    pub const ALL: &'static [ReduceOp] = &[
        ReduceOp::Sum,
        ReduceOp::Prod,
        ReduceOp::Max,
        ReduceOp::Min,
        ReduceOp::All,
        ReduceOp::Any,
        ReduceOp::ArgMax,
        ReduceOp::ArgMin,
        ReduceOp::ArgMaxLast,
        ReduceOp::ArgMinLast,
    ];

    /// Name in text forms.
    pub fn name(self) -> &'static str {
        match self {
            ReduceOp::Sum => "sum",
            ReduceOp::Prod => "prod",
            ReduceOp::Max => "max",
            ReduceOp::Min => "min",
            ReduceOp::All => "all",
            ReduceOp::Any => "any",
            ReduceOp::ArgMax => "argmax",
            ReduceOp::ArgMin => "argmin",
            ReduceOp::ArgMaxLast => "argmax_last",
            ReduceOp::ArgMinLast => "argmin_last",
        }
    }

    /// True when the result is an index and not an element.
    pub fn is_arg(self) -> bool {
        matches!(
            self,
            ReduceOp::ArgMax | ReduceOp::ArgMin | ReduceOp::ArgMaxLast | ReduceOp::ArgMinLast
        )
    }

    /// Dtype of the result.
    pub fn result(self, operand: DType) -> DType {
        if self.is_arg() { DType::I64 } else { operand }
    }
}

/// The structure of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Anchor {
    /// Every point of a space, independently.
    Loops(Loops),
    /// Rows with reductions over them.
    Rows(Rows),
    /// A sum of products.
    Contract(Contract),
    /// A convolution.
    Conv(Conv),
    /// A reduction over sliding windows.
    Pool(Pool),
    /// Attention with a softmax over keys.
    Attend(Attend),
    /// Running sums along an axis.
    Scan(Scan),
    /// The first k of an order along an axis.
    Sort(Sort),
    /// Writes at computed places.
    Scatter(Scatter),
    /// A recurrent layer over time.
    Rnn(Rnn),
}

/// Family `loops`. Body axes: `extents`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Loops {
    /// The space.
    pub extents: Vec<Dim>,
    /// Code per point and what is stored.
    pub epilogue: Epilogue,
}

/// Family `rows`. Body axes: `outer` then `inner`. A [`InstKind::Reduce`]
/// reduces over all inner axes. Stores whose value does not depend on an inner
/// axis and whose index mentions none are written once per row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rows {
    /// One row per point.
    pub outer: Vec<Dim>,
    /// Elements of a row.
    pub inner: Vec<Dim>,
    /// Code per element and what is stored.
    pub epilogue: Epilogue,
}

/// Family `contract`: acc[b, m, n] = Σ_k lhs[b, m, k] · rhs[b, k, n].
/// Axes of `lhs`: batch, m, k; of `rhs`: batch, k, n; of `epilogue`: batch, m,
/// n, with slot 0 = acc.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Contract {
    /// Axes in both operands and the result.
    pub batch: Vec<Dim>,
    /// Axes of lhs and the result.
    pub m: Vec<Dim>,
    /// Axes of rhs and the result.
    pub n: Vec<Dim>,
    /// Summed axes.
    pub k: Vec<Dim>,
    /// Left operand.
    pub lhs: Operand,
    /// Right operand.
    pub rhs: Operand,
    /// Type of products and sums (f32 for narrow floats and for f32, i32 or
    /// i64 for integers).
    pub acc: DType,
    /// What happens to the sums.
    pub epilogue: Epilogue,
}

/// Family `conv`:
/// acc[n, o, y…] = Σ_{c, k…} input[n, g·C + c, y·stride + k·dilation − pad_low] · filter[o, c, k…]
/// with g = o / (out_channels per group), C = in_channels per group; input
/// coordinates outside the extents contribute 0. Transposed:
/// acc[n, o, y…] sums over (c, x…, k…) with y = x·stride + k·dilation − pad_low
/// and filter[c (over all input channels), o (within the group), k…].
/// Axes of `input`: n, channel (all groups), spatial…; of `filter`: its first
/// two axes as above, then kernel…; of `epilogue`: n, o (all groups), y…, with
/// slot 0 = acc.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Conv {
    /// Images.
    pub batch: Dim,
    /// Groups.
    pub groups: i64,
    /// Input channels per group.
    pub in_channels: Dim,
    /// Output channels per group.
    pub out_channels: Dim,
    /// Input extents.
    pub in_spatial: Vec<Dim>,
    /// Output extents.
    pub out_spatial: Vec<Dim>,
    /// Filter extents.
    pub kernel: Vec<Dim>,
    /// Step of the window (or of the input, transposed).
    pub stride: Vec<i64>,
    /// Step between filter taps.
    pub dilation: Vec<i64>,
    /// Cells before the first input cell.
    pub pad_low: Vec<Dim>,
    /// Gradient form.
    pub transposed: bool,
    /// Input.
    pub input: Operand,
    /// Filter.
    pub filter: Operand,
    /// Type of sums.
    pub acc: DType,
    /// What happens to the sums.
    pub epilogue: Epilogue,
}

/// What divides a pooled sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PoolDivisor {
    /// Nothing.
    One,
    /// Window cells inside the input.
    ValidCount,
    /// Window cells inside the padded input (`count_include_pad`).
    PaddedCount,
}

/// Family `pool`: a reduction over windows of `kernel` cells; cells outside
/// the input are skipped. Axes of `input`: outer…, spatial…; of `epilogue`:
/// outer…, out_spatial…, with slot 0 = the reduced (and divided) value and,
/// for Max, slot 1 = i64 linear index of the chosen cell in the input's
/// spatial extents (first of equals).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pool {
    /// Independent axes (images, channels).
    pub outer: Vec<Dim>,
    /// Input extents.
    pub in_spatial: Vec<Dim>,
    /// Output extents.
    pub out_spatial: Vec<Dim>,
    /// Window extents.
    pub kernel: Vec<i64>,
    /// Step of the window.
    pub stride: Vec<i64>,
    /// Step between cells.
    pub dilation: Vec<i64>,
    /// Cells before the first input cell.
    pub pad_low: Vec<Dim>,
    /// Cells after the last input cell (for `PaddedCount`).
    pub pad_high: Vec<Dim>,
    /// Sum or Max.
    pub op: ReduceOp,
    /// What divides the sum.
    pub divisor: PoolDivisor,
    /// Input.
    pub input: Operand,
    /// What happens to the result.
    pub epilogue: Epilogue,
}

/// Family `attend`:
/// s[b, m, n] = score(Σ_d q[b, m, d] · k[b, n, d]);
/// p = prob(softmax_n(s)); out[b, m, e] = epilogue(Σ_n p[b, m, n] · v[b, n, e]).
/// Axes of `q`: batch, m, d; `k`: batch, n, d; `v`: batch, n, e; `score` and
/// `prob`: batch, m, n with slot 0 = the raw score or the probability (f32 or
/// f64); `epilogue`: batch, m, e with slot 0 = the sum. A row of scores whose
/// largest is −inf gives NaN probabilities, as softmax does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attend {
    /// Axes of every operand and the result.
    pub batch: Vec<Dim>,
    /// Query axes.
    pub m: Vec<Dim>,
    /// Key axes.
    pub n: Vec<Dim>,
    /// Axes of q and k that are summed.
    pub d: Vec<Dim>,
    /// Axes of v that stay.
    pub e: Vec<Dim>,
    /// Queries.
    pub q: Operand,
    /// Keys.
    pub k: Operand,
    /// Values.
    pub v: Operand,
    /// From raw score to score; `value` is what softmax sees.
    pub score: Operand,
    /// From probability to weight.
    pub prob: Operand,
    /// Type of scores, statistics and sums (f32, or f64).
    pub acc: DType,
    /// With one query and one key axis: keys n > m + offset have probability
    /// exactly zero in every row that has another key, because the score body
    /// gives them −inf or a value that underflows; blocks of them may be skipped.
    pub causal: Option<Dim>,
    /// What happens to the result.
    pub epilogue: Epilogue,
}

/// Family `scan`: running `op` along the last axis. Axes of `input`: outer…,
/// i; of `epilogue`: outer…, i, with slot 0 = the running value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scan {
    /// Independent axes.
    pub outer: Vec<Dim>,
    /// Length of the axis.
    pub extent: Dim,
    /// Sum, Prod, Max or Min.
    pub op: ReduceOp,
    /// Leaves the element itself out.
    pub exclusive: bool,
    /// From the end.
    pub reverse: bool,
    /// Input.
    pub input: Operand,
    /// Type of the running value.
    pub acc: DType,
    /// What happens to it.
    pub epilogue: Epilogue,
}

/// Family `sort`: the first `k` elements in order along the last axis, ties by
/// lower index first. Axes of `input`: outer…, i; of `epilogue`: outer…, rank,
/// with slot 0 = the element and slot 1 = its i64 index. NaN counts as largest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sort {
    /// Independent axes.
    pub outer: Vec<Dim>,
    /// Length of the axis.
    pub extent: Dim,
    /// How many are kept.
    pub k: Dim,
    /// Descending.
    pub largest: bool,
    /// Input.
    pub input: Operand,
    /// What happens to the elements.
    pub epilogue: Epilogue,
}

/// How an update meets what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ScatterOp {
    /// Replaces; of several the last in row-major order of the updates wins.
    Replace,
    /// Adds.
    Add,
    /// Multiplies.
    Mul,
    /// Keeps the smaller.
    Min,
    /// Keeps the larger.
    Max,
}

/// Family `scatter`: the output starts as `init` (axes: the output buffer's)
/// unless absent (then the buffer keeps its contents), then every point of
/// `updates` combines `store.value` into the element `store.index`, in
/// row-major order; indices outside the buffer are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scatter {
    /// The space of updates.
    pub updates: Vec<Dim>,
    /// Initial contents.
    pub init: Option<Operand>,
    /// How updates combine.
    pub op: ScatterOp,
    /// Code per update (axes: `updates`).
    pub body: Body,
    /// Where and what.
    pub store: Store,
}

/// The recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cell {
    /// h' = f(x + r·h).
    Plain,
    /// ONNX gate order i, o, f, c; optional peepholes.
    Lstm,
    /// ONNX gate order z, r, h; recurrent bias inside the reset when set.
    Gru {
        /// The reset gate is applied after the recurrent product.
        linear_before_reset: bool,
    },
}

impl Cell {
    /// Number of gate blocks in the projections.
    pub fn gates(self) -> i64 {
        match self {
            Cell::Plain => 1,
            Cell::Lstm => 4,
            Cell::Gru { .. } => 3,
        }
    }
}

/// Family `rnn` (ONNX RNN, LSTM, GRU of one direction; the input projection
/// and biases are already in `x`). Axes of `x`: t, b, gates·hidden; `r`:
/// gates·hidden, hidden; `r_bias` (GRU with linear_before_reset): hidden;
/// `h0`, `c0`: b, hidden; `peephole` (LSTM; order i, o, f): 3·hidden;
/// `lengths`: b (i64; steps at and after the length keep the state and give 0).
/// `activations` are bodies over no axis with slot 0 = x, in ONNX order.
/// `y`: axes t, b, hidden with slot 0; `h`, `c`: axes b, hidden with slot 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rnn {
    /// Which cell.
    pub cell: Cell,
    /// From the last step to the first.
    pub reverse: bool,
    /// Steps.
    pub time: Dim,
    /// Sequences.
    pub batch: Dim,
    /// State width.
    pub hidden: Dim,
    /// Projected input.
    pub x: Operand,
    /// Recurrent weights.
    pub r: Operand,
    /// Recurrent bias of the candidate gate.
    pub r_bias: Option<Operand>,
    /// Initial state.
    pub h0: Operand,
    /// Initial cell state.
    pub c0: Option<Operand>,
    /// Peephole weights.
    pub peephole: Option<Operand>,
    /// Sequence lengths.
    pub lengths: Option<Operand>,
    /// Gate functions.
    pub activations: Vec<Operand>,
    /// Couples input and forget gate (LSTM `input_forget`).
    pub input_forget: bool,
    /// Clips gate inputs to ±this.
    pub clip: Option<ScalarConst>,
    /// Type of sums and state.
    pub acc: DType,
    /// All states.
    pub y: Option<Epilogue>,
    /// Last state.
    pub h: Option<Epilogue>,
    /// Last cell state.
    pub c: Option<Epilogue>,
}
