//! States: inputs whose next value is an output, kept on the device between
//! runs in two blocks that change roles, so that nothing is copied.

use tgc_ir::kernel_program::Buffer;
use tgc_ir::plan::Plan;

use super::error::{CudaError, malformed};
use super::raw::Block;

/// Which inputs are held and which outputs are their next values.
#[derive(Debug)]
pub(super) struct StatePairs {
    /// (input, output)
    pub(super) pairs: Vec<(usize, usize)>,
    /// Per input and output: the caller gives or takes it.
    pub(super) given: Vec<bool>,
    pub(super) taken: Vec<bool>,
}

impl StatePairs {
    /// The plan's states when they are wanted, none otherwise.
    pub(super) fn new(plan: &Plan, wanted: bool) -> Result<StatePairs, CudaError> {
        let mut states = StatePairs {
            pairs: Vec::new(),
            given: vec![true; plan.inputs.len()],
            taken: vec![true; plan.outputs.len()],
        };
        let declared =
            plan.inputs.iter().enumerate().filter_map(|(i, p)| Some((i, p.state? as usize)));
        for (input, output) in declared.filter(|_| wanted) {
            let what = || format!("state `{}`", plan.inputs[input].name);
            let port = plan.outputs.get(output);
            let port = port.ok_or_else(|| malformed(what(), "it continues as no output"))?;
            let is_dense = |p: &tgc_ir::plan::Port| {
                let strides = plan.buffers.get(p.buffer as usize).map(|b| &b.strides);
                strides == Some(&Buffer::dense_strides(&p.shape))
            };
            if port.dtype != plan.inputs[input].dtype || !states.taken[output] {
                return Err(malformed(
                    what(),
                    "its output has another type or continues two states",
                ));
            }
            if !is_dense(port) || !is_dense(&plan.inputs[input]) {
                return Err(malformed(what(), "it is not dense in memory"));
            }
            states.given[input] = false;
            states.taken[output] = false;
            states.pairs.push((input, output));
        }
        if wanted && states.pairs.is_empty() {
            return Err(CudaError::State(
                "the plan has none; compile with --state auto or name them".into(),
            ));
        }
        Ok(states)
    }
}

/// A state of an instance.
#[derive(Debug)]
pub(super) struct Held {
    /// The present value and the place of the next.
    pub(super) blocks: [Block; 2],
    /// Extents of the present value.
    pub(super) shape: Vec<usize>,
    pub(super) is_set: bool,
}

impl Held {
    /// The next value becomes the present one.
    pub(super) fn advance(&mut self, shape: Vec<usize>) {
        self.blocks.swap(0, 1);
        self.shape = shape;
    }
}
