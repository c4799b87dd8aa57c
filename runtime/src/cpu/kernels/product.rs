//! Products written in place: rows of A against packed panels or against plain rows of B, and the packing of rows
//! as columns. The block loop is that of [`super::gemm`].

use std::ops::Range;

use super::gemm::{Lhs, PanelShape, Rows, micro, micro_rows};
use super::isa::Isa;
use super::simd::{Kernel, Simd};
use super::taps::Starts;

/// The right operand of [`product`].
#[derive(Clone, Copy, Debug)]
pub enum Rhs {
    /// Packed panels of this shape.
    Panels(PanelShape),
    /// Rows of `n` floats, `ld` apart; `n` is a multiple of the lanes.
    Rows { n: usize, ld: usize },
}

/// `c[r][j] = sum over k of lhs row (first + r) * rhs[k][j]` for `rows` rows, written in place, `ldc` apart and a
/// whole number of vectors wide.
///
/// # Safety
/// The left rows are of one segment and readable for `run` floats, `b` as `rhs` says for as many k, `c` writable for
/// `rows` rows of the columns rounded up to vectors.
#[allow(clippy::too_many_arguments, reason = "three operands and their extents")]
pub unsafe fn product(
    isa: Isa,
    lhs: &Lhs<'_>,
    first: usize,
    rows: usize,
    b: *const f32,
    rhs: Rhs,
    panels: Range<usize>,
    c: *mut f32,
    ldc: usize,
) {
    isa.run(Product { lhs, first, rows, b, rhs, panels, c, ldc });
}

struct Product<'a, 'b> {
    lhs: &'a Lhs<'b>,
    first: usize,
    rows: usize,
    b: *const f32,
    rhs: Rhs,
    panels: Range<usize>,
    c: *mut f32,
    ldc: usize,
}

impl Kernel for Product<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for p in self.panels.clone() {
            let (col, nv, start, ldb) = match self.rhs {
                Rhs::Panels(shape) => {
                    let nv = shape.vectors(p);
                    (p * shape.width(), nv, shape.start(p), nv * S::N)
                }
                Rhs::Rows { n, ld } => {
                    let col = p * S::NV * S::N;
                    (col, ((n - col) / S::N).min(S::NV), col, ld)
                }
            };
            let most = (S::ACC / nv).min(S::MR);
            let mut done = 0;
            while done < self.rows {
                let mr = micro_rows(self.rows - done, most);
                let mut starts = Starts::new();
                let starts = self.lhs.starts(self.first + done, mr, 0, 1, &mut starts);
                // SAFETY: the caller's.
                unsafe {
                    let c = self.c.add(done * self.ldc + col);
                    let b = self.b.add(start);
                    micro(s, mr, nv, starts, self.lhs.run, b, ldb, c, self.ldc, false);
                }
                done += mr;
            }
        }
    }
}

/// Panels of [`Rhs::Rows`] with `n` columns.
#[must_use]
pub fn row_panels(isa: Isa, n: usize) -> usize {
    struct Width(usize);
    impl Kernel for Width {
        type Out = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            self.0.div_ceil(S::NV * S::N)
        }
    }
    isa.run(Width(n))
}

/// Packs rows `n` of a `[n, k]` matrix (each contiguous) as the columns of panel `p`.
///
/// # Safety
/// Each row start is readable for `shape.k` floats.
pub unsafe fn pack_rows_as_columns(
    isa: Isa,
    base: *const f32,
    rows: Rows<'_>,
    shape: PanelShape,
    p: usize,
    out: &mut [f32],
) {
    let ld = shape.vectors(p) * shape.lanes;
    assert!(out.len() >= shape.k * ld && ld <= 64);
    isa.run(PackColumns { base, rows, shape, p, out });
}

struct PackColumns<'a, 'b> {
    base: *const f32,
    rows: Rows<'b>,
    shape: PanelShape,
    p: usize,
    out: &'a mut [f32],
}

impl Kernel for PackColumns<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let shape = self.shape;
        let ld = shape.vectors(self.p) * shape.lanes;
        let col = self.p * shape.width();
        let count = ld.min(shape.n - col);
        let lhs = Lhs { base: self.base, rows: self.rows, run: shape.k };
        let mut starts = [self.base; 64];
        for (chunk, to) in starts[..count].chunks_mut(8).enumerate() {
            let mut found = Starts::new();
            let found = lhs.starts(col + chunk * 8, to.len(), 0, 1, &mut found);
            to.copy_from_slice(&found[0][..to.len()]);
        }
        for (k, out) in self.out.chunks_exact_mut(ld).enumerate().take(shape.k) {
            for (j, out) in out.iter_mut().enumerate() {
                // SAFETY: `k` is inside each row; columns past the last are zero.
                *out = if j < count { unsafe { *starts[j].add(k) } } else { 0.0 };
            }
        }
    }
}
