//! Operands that need no evaluation: single-precision matrices whose rows lie contiguous, one per batch point.

use tgc_ir::DType;
use tgc_ir::kernel_program::{InstKind, Operand};

use super::contract::coordinates;
use crate::cpu::error::CpuError;
use crate::cpu::index::{Affine, Expr, Walk, bind, split};
use crate::cpu::kernels::gemm::Rows;
use crate::cpu::kernels::region::Region;
use crate::cpu::program::{Binder, count};

/// Where rows start, in floats from the matrix.
#[derive(Debug)]
pub(super) enum RowStarts {
    /// Evenly spaced.
    Strided(usize),
    /// Anywhere.
    Table(Vec<usize>),
}

impl RowStarts {
    pub(super) fn view(&self) -> Rows<'_> {
        match self {
            RowStarts::Strided(s) => Rows::Strided(*s),
            RowStarts::Table(t) => Rows::Table(t),
        }
    }
}

/// A matrix in place, per batch point.
#[derive(Debug)]
pub(super) struct InPlace {
    region: usize,
    /// First float of each batch point.
    starts: Vec<usize>,
    pub(super) rows: RowStarts,
    /// Last float of all.
    last: i64,
}

impl InPlace {
    /// The operand as matrices of contiguous rows; `None` when it has to be evaluated. How an offset depends on the
    /// batch axes is free (grouped heads divide), on rows and columns it is affine.
    pub(super) fn of(
        cx: &Binder<'_>,
        operand: &Operand,
        batch: &[i64],
        rows: &[i64],
        cols: &[i64],
    ) -> Result<Option<Self>, CpuError> {
        let axes = batch.len() + rows.len() + cols.len();
        let Some((region, affine, rest)) = load_f32(cx, operand, axes)? else { return Ok(None) };
        let inner = &affine.coefs[batch.len()..];
        let (r, c) = inner.split_at(rows.len());
        let contiguous = Walk::new(cols, c).stride() == Some(1) || count(cols) == 1;
        if !contiguous || inner.iter().any(|&c| c < 0) {
            return Ok(None);
        }
        let mut starts = Vec::with_capacity(count(batch));
        for b in 0..count(batch) {
            let mut at = coordinates(b, batch);
            at.resize(axes, 0);
            let rest = match &rest {
                None => Some(0),
                Some(rest) if rest.uses_only(batch.len()) => rest.value(&at),
                Some(_) => None,
            };
            let base = affine.coefs.iter().zip(&at).fold(affine.base, |o, (c, x)| o + c * x);
            match rest.and_then(|rest| usize::try_from(base + rest).ok()) {
                Some(start) => starts.push(start),
                None => return Ok(None),
            }
        }
        let reach = Affine { base: 0, coefs: inner.into() }.range(&[rows, cols].concat()).1;
        let last = starts.iter().max().map_or(0, |&s| s as i64) + reach;
        let walk = Walk::new(rows, r);
        let rows = match walk.stride() {
            Some(s) => RowStarts::Strided(s as usize),
            None => {
                RowStarts::Table((0..count(rows) as i64).map(|i| walk.offset(i) as usize).collect())
            }
        };
        Ok(Some(Self { region, starts, rows, last }))
    }

    /// First float of the matrix at a batch point, after checking that all of them lie in the region.
    pub(super) fn start(&self, regions: &[Region], b: usize) -> *const f32 {
        regions[self.region].check_floats(self.last);
        regions[self.region].float_at(self.starts[b])
    }
}

/// An unguarded single-precision load: region, affine part and rest of its element offset.
fn load_f32(
    cx: &Binder<'_>,
    operand: &Operand,
    axes: usize,
) -> Result<Option<(usize, Affine, Option<Expr>)>, CpuError> {
    let InstKind::Load(load) = &operand.body.insts[operand.value as usize].kind else {
        return Ok(None);
    };
    let (dtype, strides) = &cx.buffers[load.buffer as usize];
    if *dtype != DType::F32 || !load.guards.is_empty() {
        return Ok(None);
    }
    let mut sum = tgc_ir::Dim::ZERO;
    for (dim, &stride) in load.index.iter().zip(strides) {
        sum = sum + bind(dim, cx.symbols) * tgc_ir::Dim::Const(stride);
    }
    let parts = split(&sum, axes).map_err(|e| cx.dim_error(e))?;
    Ok(Some((load.buffer as usize, parts.affine, parts.rest)))
}

/// As [`load_f32`], when the whole offset is affine.
pub(super) fn plain_f32(
    cx: &Binder<'_>,
    operand: &Operand,
    axes: usize,
) -> Result<Option<(usize, Affine)>, CpuError> {
    let found = load_f32(cx, operand, axes)?;
    Ok(found.and_then(|(region, affine, rest)| rest.is_none().then_some((region, affine))))
}
