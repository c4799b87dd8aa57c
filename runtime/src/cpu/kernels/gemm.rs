//! Single-precision contraction: rows of A against column panels of B, block by block into an L1 tile.
//!
//! A block's accumulators start at zero, take one fused multiply-add per k in ascending order, and are stored by
//! straight-line code to the tile; what happens to the tile is the caller's second loop. A row's bits therefore
//! depend on nothing but the row, the panel and the instruction set. A row is one or more segments with a start
//! of their own, so that a convolution is the same loop (a segment is the channels under one filter tap).

use std::ops::Range;

use super::isa::Isa;
use super::simd::{Kernel, Simd};
use super::taps::{SEGMENTS, Starts, Taps};

/// Where the rows of the left operand start, in floats from its base.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Row `i` at `i * stride`.
    Strided(usize),
    /// Row `i` at `table[i]`.
    Table(&'a [usize]),
    /// Row `i` is position `i` of sliding windows, in one segment per tap.
    Windows(Taps<'a>),
}

/// The left operand: row `i`, element `k` lies at the start of segment `k / run` of the row, plus `k % run`. Rows
/// that are no windows have one segment.
#[derive(Clone, Copy, Debug)]
pub struct Lhs<'a> {
    /// First float.
    pub base: *const f32,
    /// Row starts.
    pub rows: Rows<'a>,
    /// Floats per segment.
    pub run: usize,
}

// SAFETY: a description of memory; using it is what needs a proof.
unsafe impl Sync for Lhs<'_> {}
// SAFETY: as above.
unsafe impl Send for Lhs<'_> {}

impl Lhs<'_> {
    /// Segments of a row.
    #[inline(always)]
    pub(crate) fn segments(&self) -> usize {
        match self.rows {
            Rows::Windows(taps) => taps.count(),
            _ => 1,
        }
    }

    /// Starts of segments `from..from + count` of rows `row..row + rows`.
    #[inline(always)]
    pub(crate) fn starts<'s>(
        &self,
        row: usize,
        rows: usize,
        from: usize,
        count: usize,
        starts: &'s mut Starts,
    ) -> &'s [[*const f32; 8]] {
        match self.rows {
            Rows::Strided(stride) => {
                starts.set(rows, |r| self.base.wrapping_add((row + r) * stride));
            }
            Rows::Table(table) => starts.set(rows, |r| self.base.wrapping_add(table[row + r])),
            Rows::Windows(taps) => taps.starts(self.base, row, rows, from..from + count, starts),
        }
        starts.filled(count)
    }
}

/// Packed B: columns in panels of `nv` vectors, each panel `[k][width]` with the last one narrower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PanelShape {
    /// Length of the contraction.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// Vectors per full panel.
    pub nv: usize,
    /// Lanes per vector.
    pub lanes: usize,
}

impl PanelShape {
    /// The layout of a `[k, n]` operand for `isa`.
    #[must_use]
    pub fn new(isa: Isa, k: usize, n: usize) -> Self {
        isa.run(ChooseWidth { k, n })
    }

    /// Columns of a full panel.
    #[must_use]
    pub fn width(self) -> usize {
        self.nv * self.lanes
    }

    /// Number of panels.
    #[must_use]
    pub fn panels(self) -> usize {
        self.n.div_ceil(self.width().max(1))
    }

    /// Floats of the packed operand.
    #[must_use]
    pub fn floats(self) -> usize {
        self.k * self.n.next_multiple_of(self.lanes)
    }

    /// Vectors of panel `p`.
    #[inline(always)]
    #[must_use]
    pub fn vectors(self, p: usize) -> usize {
        (self.n - p * self.width()).div_ceil(self.lanes).min(self.nv)
    }

    /// First float of panel `p`.
    #[inline(always)]
    #[must_use]
    pub fn start(self, p: usize) -> usize {
        p * self.width() * self.k
    }
}

struct ChooseWidth {
    k: usize,
    n: usize,
}

impl Kernel for ChooseWidth {
    type Out = PanelShape;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> PanelShape {
        // Time of one k step of a full-height block, in vectors: narrow blocks wait for loads.
        let cost = |nv: usize| match nv {
            1 if S::NV > 2 => 18,
            1 => 14,
            2 if S::NV > 2 => 23,
            nv => nv * 10,
        };
        let total = |nv: usize| {
            let vectors = self.n.div_ceil(S::N);
            let rest = vectors % nv;
            vectors / nv * cost(nv) + if rest == 0 { 0 } else { cost(rest) }
        };
        let narrow = if S::NV > 2 { 3 } else { S::NV };
        let nv = if total(S::NV) < total(narrow) { S::NV } else { narrow };
        PanelShape { k: self.k, n: self.n, nv, lanes: S::N }
    }
}

/// One finished block: rows `row..row + rows` by columns `col..col + cols`, `tile[r * ld + c]`.
#[derive(Debug)]
pub struct Block<'a> {
    /// First row.
    pub row: usize,
    /// Rows.
    pub rows: usize,
    /// First column.
    pub col: usize,
    /// Columns; the tile holds up to a vector more per row, of products with zero columns.
    pub cols: usize,
    /// Floats between rows of the tile; a multiple of the lanes.
    pub ld: usize,
    /// The values.
    pub tile: &'a mut [f32],
}

/// Rows of a block of the widest panels; narrower ones have as many more.
pub const BLOCK_ROWS: usize = 32;
/// Floats of the tile that [`contract`] needs.
pub const TILE_FLOATS: usize = BLOCK_ROWS * 64;
/// Bytes of A that a pass over all panels should find again in the second-level cache.
const ROWS_BYTES: usize = 640 << 10;
/// Bytes of A and of the result that a pass over panels that stay cached should find again.
const RESULT_BYTES: usize = 320 << 10;

/// Multiplies rows `rows` of `lhs` with the panels `panels` of `packed`, block by block into `tile`, handing each
/// block to `sink`.
///
/// # Safety
/// Every element of `lhs` that `rows` names is readable and nothing writes it meanwhile.
///
/// # Panics
/// When `tile` or `packed` is too short.
pub unsafe fn contract(
    isa: Isa,
    lhs: &Lhs<'_>,
    rows: Range<usize>,
    shape: PanelShape,
    packed: &[f32],
    panels: Range<usize>,
    tile: &mut [f32],
    sink: &mut dyn FnMut(Block<'_>),
) {
    assert!(
        tile.len() >= TILE_FLOATS && packed.len() >= shape.floats() && panels.end <= shape.panels()
    );
    assert_eq!(lhs.segments() * lhs.run, shape.k);
    // SAFETY: lengths are checked above; the caller vouches for `lhs`.
    isa.run(Contract { lhs, rows, shape, packed, panels, tile, sink });
}

struct Contract<'a, 'b> {
    lhs: &'a Lhs<'b>,
    rows: Range<usize>,
    shape: PanelShape,
    packed: &'a [f32],
    panels: Range<usize>,
    tile: &'a mut [f32],
    sink: &'a mut dyn FnMut(Block<'_>),
}

impl Kernel for Contract<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let shape = self.shape;
        let step = rows_per_pass(shape, self.rows.len());
        let mut from = self.rows.start;
        while from < self.rows.end {
            let to = (from + step).min(self.rows.end);
            for p in self.panels.clone() {
                let panel = &self.packed[shape.start(p)..];
                let nv = shape.vectors(p);
                let ld = nv * S::N;
                let most = TILE_FLOATS / ld / 8 * 8;
                let mut row = from;
                while row < to {
                    let count = block_rows(to - row, most);
                    // SAFETY: the panel holds `k` rows of `ld` floats, the tile BLOCK_ROWS rows; the caller of
                    // `contract` vouches for the left operand.
                    unsafe { block(s, self.lhs, row, count, nv, shape.k, panel, self.tile) };
                    let col = p * shape.width();
                    let cols = ld.min(shape.n - col);
                    (self.sink)(Block { row, rows: count, col, cols, ld, tile: self.tile });
                    row += count;
                }
            }
            from = to;
        }
    }
}

/// Rows that a pass over all panels takes, of `rows`. Where B stays in the second-level cache anyway, few enough that
/// the results stay too until their lines are whole; else all, unless A overflows that cache and there are enough
/// rows to split.
fn rows_per_pass(shape: PanelShape, rows: usize) -> usize {
    let bytes_of_b = 4 * shape.floats();
    let row = if bytes_of_b <= RESULT_BYTES { shape.k + shape.n } else { shape.k };
    let bytes = if bytes_of_b <= RESULT_BYTES { RESULT_BYTES } else { ROWS_BYTES };
    let fit = (bytes / (4 * row.max(1))).max(64) / BLOCK_ROWS * BLOCK_ROWS;
    if rows > 2 * fit { fit } else { rows.max(1) }
}

/// Rows of the next block: `most`, the last two about equal.
#[inline(always)]
fn block_rows(left: usize, most: usize) -> usize {
    if left <= most {
        left
    } else if left < 2 * most {
        (left / 2).next_multiple_of(8).min(most)
    } else {
        most
    }
}

/// Rows of the next micro-block: as equal as the height limit allows, because short blocks wait for latency.
#[inline(always)]
pub(crate) fn micro_rows(left: usize, most: usize) -> usize {
    left.div_ceil(left.div_ceil(most))
}

/// # Safety
/// As [`contract`], for `rows` rows from `row` on.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the registers of one loop")]
unsafe fn block<S: Simd>(
    s: S,
    lhs: &Lhs<'_>,
    row: usize,
    rows: usize,
    nv: usize,
    k: usize,
    panel: &[f32],
    tile: &mut [f32],
) {
    let ld = nv * S::N;
    let most = (S::ACC / nv).min(S::MR);
    debug_assert!(rows * ld <= tile.len() && k * ld <= panel.len());
    let mut done = 0;
    while done < rows {
        let mr = micro_rows(rows - done, most);
        let mut from = 0;
        let segments = lhs.segments();
        while from < segments {
            let count = SEGMENTS.min(segments - from);
            let mut starts = Starts::new();
            let starts = lhs.starts(row + done, mr, from, count, &mut starts);
            // SAFETY: starts come from `lhs`, for which the caller vouches; the tile has room for `rows` rows of
            // `ld` floats and the panel holds `k` rows of `ld`.
            unsafe {
                let out = tile.as_mut_ptr().add(done * ld);
                let b = panel.as_ptr().add(from * lhs.run * ld);
                micro(s, mr, nv, starts, lhs.run, b, ld, out, ld, from > 0);
            }
            from += count;
        }
        done += mr;
    }
}

/// Picks the monomorphic micro-kernel of `mr` rows by `nv` vectors.
///
/// # Safety
/// Each of `starts[..][..mr]` is readable for `run` floats; `b` is readable for `starts.len() * run` rows of `nv`
/// vectors, `ldb` apart; `c` is writable (readable too, with `add`) for `mr` rows of `nv` vectors, `ldc` apart.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the registers of one loop")]
pub(crate) unsafe fn micro<S: Simd>(
    s: S,
    mr: usize,
    nv: usize,
    starts: &[[*const f32; 8]],
    run: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    macro_rules! pick {
        ($($mr:literal)*; $nv:literal) => {
            match mr {
                $($mr if S::MR >= $mr && S::ACC >= $mr * $nv => {
                    // SAFETY: the caller's.
                    unsafe { fma_block::<S, $mr, $nv>(s, starts, run, b, ldb, c, ldc, add) }
                })*
                _ => unreachable!("blocks are cut to the limits of the instruction set"),
            }
        };
    }
    match nv {
        1 => pick!(1 2 3 4 5 6 7 8; 1),
        2 => pick!(1 2 3 4 5 6 7 8; 2),
        3 if S::NV >= 3 => pick!(1 2 3 4 5 6 7 8; 3),
        4 if S::NV >= 4 => pick!(1 2 3 4 5 6; 4),
        _ => unreachable!("panels are cut to the limits of the instruction set"),
    }
}

/// `c[r][v] = (add ? c[r][v] : 0) + sum over segments and k of starts[segment][r][k] * b[k][v]`, k ascending, one rounding per step.
///
/// # Safety
/// As [`micro`].
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the registers of one loop")]
#[allow(
    clippy::needless_range_loop,
    reason = "constant index loops keep the accumulators in registers"
)]
unsafe fn fma_block<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    starts: &[[*const f32; 8]],
    run: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    let zero = s.splat(0.0);
    let mut acc = [[zero; NV]; MR];
    // SAFETY: the caller vouches for all three operands; every index below is within their stated extents.
    unsafe {
        if add {
            for r in 0..MR {
                for v in 0..NV {
                    acc[r][v] = s.load(c.add(r * ldc + v * S::N));
                }
            }
        }
        let mut b = b;
        for at in starts {
            for k in 0..run {
                let mut column = [zero; NV];
                for v in 0..NV {
                    column[v] = s.load(b.add(v * S::N));
                }
                b = b.add(ldb);
                for r in 0..MR {
                    let a = s.splat(*at[r].add(k));
                    for v in 0..NV {
                        acc[r][v] = s.fma(a, column[v], acc[r][v]);
                    }
                }
            }
        }
        for r in 0..MR {
            for v in 0..NV {
                s.store(c.add(r * ldc + v * S::N), acc[r][v]);
            }
        }
    }
}
