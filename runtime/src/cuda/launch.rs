//! Sizes under bound symbols: which variant of a launch runs, with which
//! grid, and which runs of bytes a copy moves. Knows no driver.

use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::plan::{Plan, PlanBuffer, Variant};

use super::error::CudaError;
use super::program::LaunchSite;

/// Largest grid (CUDA programming guide, technical specifications).
const GRID_MAX: [i64; 3] = [i32::MAX as i64, 65_535, 65_535];
/// Separate copies that a strided copy may become.
const RUNS_MAX: usize = 4096;

/// Values of a plan's symbols, in the order of its table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    pub(super) plan: &'a Plan,
    pub(super) table: &'a [i64],
}

impl Values<'_> {
    fn lookup(&self, symbol: &Symbol) -> Option<i64> {
        self.plan.symbol_index(symbol).and_then(|i| self.table.get(i).copied())
    }

    /// The value of a size of `what`.
    pub(super) fn eval(&self, dim: &Dim, what: &str) -> Result<i64, CudaError> {
        let fail = |source| CudaError::Dim { what: format!("`{what}`"), source };
        dim.as_const().map_or_else(|| dim.eval(&|s| self.lookup(s)).map_err(fail), Ok)
    }

    /// The value of a count of bytes; negative ones (of empty tensors) are zero.
    pub(super) fn bytes(&self, dim: &Dim, what: &str) -> Result<usize, CudaError> {
        Ok(self.eval(dim, what)?.max(0) as usize)
    }

    /// Extents or strides.
    pub(super) fn list(&self, dims: &[Dim], what: &str) -> Result<Vec<usize>, CudaError> {
        dims.iter().map(|d| self.bytes(d, what)).collect()
    }

    /// The first variant whose guard holds, and its index.
    pub(super) fn select<'s>(
        &self,
        site: &'s LaunchSite,
    ) -> Result<(&'s Variant, usize), CudaError> {
        for (variant, entry) in &site.variants {
            let mut holds = true;
            for require in &variant.guard {
                let truth = require.holds(&|s| self.lookup(s));
                let fail = |source| CudaError::Dim {
                    what: format!("a guard of `{}`", site.kernel),
                    source,
                };
                holds = holds && truth.map_err(fail)?;
            }
            if holds {
                return Ok((variant, *entry));
            }
        }
        Err(CudaError::Launch {
            kernel: site.kernel.clone(),
            why: "no guard of its entries holds".into(),
        })
    }

    /// Grid of a launch; `None` when there is nothing to do.
    pub(super) fn grid(
        &self,
        site: &LaunchSite,
        variant: &Variant,
    ) -> Result<Option<[u32; 3]>, CudaError> {
        let mut grid = [0; 3];
        for ((out, dim), most) in grid.iter_mut().zip(&variant.grid).zip(GRID_MAX) {
            let blocks = self.eval(dim, &variant.entry)?;
            if !(0..=most).contains(&blocks) {
                let why = format!("{blocks} blocks along an axis that takes {most}");
                return Err(CudaError::Launch { kernel: site.kernel.clone(), why });
            }
            *out = blocks as u32;
        }
        Ok((!grid.contains(&0)).then_some(grid))
    }

    /// Runs of bytes that copy a buffer to another: (from, to, bytes), offsets in bytes.
    pub(super) fn copy_runs(
        &self,
        from: &PlanBuffer,
        to: &PlanBuffer,
    ) -> Result<Vec<(usize, usize, usize)>, CudaError> {
        let refused =
            |why: String| CudaError::Copy { from: from.name.clone(), to: to.name.clone(), why };
        let shape = self.list(&from.shape, &from.name)?;
        let (source, target) =
            (self.list(&from.strides, &from.name)?, self.list(&to.strides, &to.name)?);
        if is_dense(&shape, &source) && is_dense(&shape, &target) {
            return Ok(vec![(0, 0, from.dtype.storage_bytes(shape.iter().product()))]);
        }
        let width = from.dtype.bytes();
        let width =
            width.ok_or_else(|| refused(format!("{} has no byte per element", from.dtype)))?;
        runs(&shape, &source, &target, width)
            .ok_or_else(|| refused(format!("it takes more than {RUNS_MAX} separate copies")))
    }
}

/// True when elements lie densely in row-major order.
pub(super) fn is_dense(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    for (&extent, &stride) in shape.iter().zip(strides).rev() {
        if extent > 1 && stride != expected {
            return false;
        }
        expected *= extent.max(1);
    }
    true
}

/// Longest common runs of two strided layouts; `None` when there are too many.
fn runs(
    shape: &[usize],
    from: &[usize],
    to: &[usize],
    width: usize,
) -> Option<Vec<(usize, usize, usize)>> {
    if shape.contains(&0) {
        return Some(Vec::new());
    }
    // The innermost axes that are dense on both sides are one run.
    let inner = (0..=shape.len())
        .find(|&a| is_dense(&shape[a..], &from[a..]) && is_dense(&shape[a..], &to[a..]))
        .unwrap_or(shape.len());
    let bytes = shape[inner..].iter().product::<usize>() * width;
    let count = shape[..inner].iter().try_fold(1usize, |n, e| n.checked_mul(*e))?;
    if count > RUNS_MAX {
        return None;
    }
    let offset = |mut i: usize, strides: &[usize]| {
        let mut offset = 0;
        for a in (0..inner).rev() {
            offset += i % shape[a] * strides[a];
            i /= shape[a];
        }
        offset * width
    };
    Some((0..count).map(|i| (offset(i, from), offset(i, to), bytes)).collect())
}

/// Byte offsets of a strided tensor's elements in row-major order.
pub(super) fn element_offsets(
    shape: &[usize],
    strides: &[usize],
    width: usize,
) -> impl Iterator<Item = usize> {
    let count = shape.iter().product();
    (0..count).map(move |mut i: usize| {
        let mut offset = 0;
        for (extent, stride) in shape.iter().zip(strides).rev() {
            offset += i % extent * stride;
            i /= extent;
        }
        offset * width
    })
}
