//! One file per anchor of the kernel language: bound to extents here, run over tiles.

mod attend;
mod attend_plain;
mod contract;
mod conv;
mod conv_depthwise;
mod conv_phases;
mod conv_plain;
mod in_place;
mod integer;
mod loops;
mod pool;
mod rnn;
mod rows;
mod scan;
mod scatter;
mod sort;
mod staging;
mod windowed;

use tgc_ir::kernel_program::Anchor;

use super::error::CpuError;
use super::exec::Exec;
use super::kernels::region::Region;
use super::program::Binder;

/// A bound anchor.
pub(super) trait Launch: std::fmt::Debug + Send + Sync {
    /// Runs over one region per argument.
    fn run(&self, exec: Exec<'_>, regions: &[Region]);
}

/// Any bound anchor.
pub(super) type Bound = Box<dyn Launch>;

/// Binds the anchor of a kernel.
pub(super) fn bind_anchor(cx: &Binder<'_>, anchor: &Anchor) -> Result<Bound, CpuError> {
    Ok(match anchor {
        Anchor::Loops(a) => Box::new(loops::bind(cx, a)?),
        Anchor::Rows(a) => Box::new(rows::bind(cx, a)?),
        Anchor::Contract(a) => contract::bind(cx, a)?,
        Anchor::Conv(a) => conv::bind(cx, a)?,
        Anchor::Pool(a) => pool::bind(cx, a)?,
        Anchor::Attend(a) => Box::new(attend::bind(cx, a)?),
        Anchor::Scan(a) => Box::new(scan::bind(cx, a)?),
        Anchor::Sort(a) => Box::new(sort::bind(cx, a)?),
        Anchor::Scatter(a) => Box::new(scatter::bind(cx, a)?),
        Anchor::Rnn(a) => Box::new(rnn::bind(cx, a)?),
    })
}
