//! Family `conv`: convolution as a contraction over taps (implicit GEMM), or one thread per output.
//!
//! The anchor is rewritten as a contraction whose left operand is the input at computed coordinates and
//! zero outside: groups are groups, rows are images and output cells, columns are output channels, steps
//! are input channels and taps. Groups with few output channels (depthwise) take the direct form.

mod direct;

use tgc_ir::Dim;
use tgc_ir::kernel_program::{Contract, Conv, Epilogue, Guard, Operand, axis};

use super::contract;
use crate::cuda::emit::{Emitted, Request};
use crate::cuda::print::scope::{PrintError, Scope};

/// Output channels per group below which a tile would be mostly empty.
const DIRECT_CHANNELS: i64 = 8;

/// A convolution as a contraction.
pub(super) struct AsContract {
    /// Sums of products over input channels and taps.
    pub(super) contract: Contract,
    /// Where the left operand is there; axes: group, image, cells…, steps….
    pub(super) inside: Vec<Guard>,
}

/// Emits a convolution.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Conv,
) -> Result<Emitted, PrintError> {
    let rank = anchor.in_spatial.len();
    let is_even = [
        anchor.out_spatial.len(),
        anchor.kernel.len(),
        anchor.stride.len(),
        anchor.dilation.len(),
        anchor.pad_low.len(),
    ];
    if is_even.iter().any(|&len| len != rank) {
        return Err(scope.malformed("a convolution whose spatial lists differ in length"));
    }
    let channels_last = is_channels_last(scope, anchor);
    let rewritten = rewrite(anchor, channels_last);
    let is_narrow =
        anchor.out_channels.as_const().is_some_and(|channels| channels < DIRECT_CHANNELS);
    if is_narrow {
        return direct::emit(scope, request, &rewritten);
    }
    contract::emit_with_conditions(scope, request, &rewritten.contract, rewritten.inside, "conv")
}

/// True when neighbouring input channels are neighbours in memory.
fn is_channels_last(scope: &Scope<'_>, anchor: &Conv) -> bool {
    let Some(load) = anchor.input.plain_load() else { return false };
    let Some(buffer) = scope.program.buffers.get(load.buffer as usize) else { return false };
    let offset = buffer.offset(&load.index);
    offset.linear_in(&tgc_ir::kernel_program::axis_symbol(1)).is_some_and(|(by, _)| by.is(1))
}

/// Positions of the contraction's axes in a body over group, then two more parts.
struct Places {
    rank: usize,
    channels_last: bool,
}

impl Places {
    /// Input channel among the steps, counted from the first step.
    fn channel(&self) -> usize {
        if self.channels_last { self.rank } else { 0 }
    }

    /// Tap `d` among the steps.
    fn tap(&self, d: usize) -> usize {
        if self.channels_last { d } else { 1 + d }
    }
}

fn rewrite(anchor: &Conv, channels_last: bool) -> AsContract {
    let rank = anchor.in_spatial.len();
    let places = Places { rank, channels_last };
    let (input, inside) = input_operand(anchor, &places);
    let mut k = anchor.kernel.clone();
    k.insert(places.channel(), anchor.in_channels.clone());
    let mut m = vec![anchor.batch.clone()];
    m.extend(anchor.out_spatial.iter().cloned());
    let contract = Contract {
        batch: vec![Dim::Const(anchor.groups)],
        m,
        n: vec![anchor.out_channels.clone()],
        k,
        lhs: input,
        rhs: filter_operand(anchor, &places),
        acc: anchor.acc,
        epilogue: epilogue(anchor),
    };
    AsContract { contract, inside }
}

/// The input at group, image, cells (axes 0 to 1 + rank) and steps (from 2 + rank).
fn input_operand(anchor: &Conv, places: &Places) -> (Operand, Vec<Guard>) {
    let rank = places.rank;
    let first_step = 2 + rank;
    let channel = axis(0) * anchor.in_channels.clone() + axis(first_step + places.channel());
    let mut coordinates = Vec::new();
    let mut inside = Vec::new();
    for d in 0..rank {
        let (cell, tap) = (axis(2 + d), axis(first_step + places.tap(d)));
        let (stride, reach) = (Dim::Const(anchor.stride[d]), tap * Dim::Const(anchor.dilation[d]));
        let coordinate = if anchor.transposed {
            let lifted = cell + anchor.pad_low[d].clone() - reach;
            if anchor.stride[d] != 1 {
                inside.push(Guard { value: lifted.modulo(&stride), below: Dim::ONE });
            }
            lifted.floor_div(&stride)
        } else {
            cell * stride + reach - anchor.pad_low[d].clone()
        };
        inside.push(Guard { value: coordinate.clone(), below: anchor.in_spatial[d].clone() });
        coordinates.push(coordinate);
    }
    let input = anchor.input.with_axes(&|n| match n {
        0 => axis(1),
        1 => channel.clone(),
        n => coordinates.get(n - 2).cloned().unwrap_or(Dim::ZERO),
    });
    (input, inside)
}

/// The filter at group (axis 0), steps (from 1), output channel within the group (last).
fn filter_operand(anchor: &Conv, places: &Places) -> Operand {
    let column = axis(2 + places.rank);
    let channel = axis(1 + places.channel());
    let (first, second) = if anchor.transposed {
        (axis(0) * anchor.in_channels.clone() + channel, column)
    } else {
        (axis(0) * anchor.out_channels.clone() + column, channel)
    };
    anchor.filter.with_axes(&|n| match n {
        0 => first.clone(),
        1 => second.clone(),
        n => axis(1 + places.tap(n - 2)),
    })
}

/// The epilogue at group (axis 0), image and cells (1 to 1 + rank), output channel within the group (last).
fn epilogue(anchor: &Conv) -> Epilogue {
    let rank = anchor.in_spatial.len();
    let channel = axis(0) * anchor.out_channels.clone() + axis(2 + rank);
    anchor.epilogue.with_axes(&|n| match n {
        0 => axis(1),
        1 => channel.clone(),
        n => axis(n),
    })
}
