//! Kernel families: one folder each, a skeleton with slots and one function that fills it.
//!
//! A family sees a program's anchor and a scope; it knows no other family except through the contraction
//! skeletons that `conv` shares.

mod attend;
mod contract;
mod conv;
mod frame;
mod loops;
mod pool;
mod rnn;
mod rows;
mod scan;
mod scatter;
mod sort;

use tgc_ir::kernel_program::Anchor;

use super::emit::{Emitted, Request};
use super::print::scope::{PrintError, Scope};

/// The skeleton headers that emitted text may include: name and text.
pub const SKELETONS: [(&str, &str); 6] = [
    ("tile_fill.cuh", include_str!("contract/tile_fill.cuh")),
    ("contract_tensor_core.cuh", include_str!("contract/tensor_core.cuh")),
    ("contract_plain.cuh", include_str!("contract/plain.cuh")),
    ("contract_stream.cuh", include_str!("contract/stream.cuh")),
    ("attend_tensor_core.cuh", include_str!("attend/tensor_core.cuh")),
    ("attend_plain.cuh", include_str!("attend/plain.cuh")),
];

/// Emits the program with the family of its anchor.
pub(super) fn emit(scope: &Scope<'_>, request: &Request<'_>) -> Result<Emitted, PrintError> {
    match &scope.program.anchor {
        Anchor::Loops(anchor) => loops::emit(scope, request, anchor),
        Anchor::Rows(anchor) => rows::emit(scope, request, anchor),
        Anchor::Contract(anchor) => contract::emit(scope, request, anchor),
        Anchor::Conv(anchor) => conv::emit(scope, request, anchor),
        Anchor::Pool(anchor) => pool::emit(scope, request, anchor),
        Anchor::Attend(anchor) => attend::emit(scope, request, anchor),
        Anchor::Scan(anchor) => scan::emit(scope, request, anchor),
        Anchor::Sort(anchor) => sort::emit(scope, request, anchor),
        Anchor::Scatter(anchor) => scatter::emit(scope, request, anchor),
        Anchor::Rnn(anchor) => rnn::emit(scope, request, anchor),
    }
}
