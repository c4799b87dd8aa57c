//! placeholder

use super::OnnxOp;

pub(crate) const OPS: &[OnnxOp] = &[];
