//! Random views, contractions and convolutions with a given result.

use std::sync::Arc;

use tgc_ir::attr::Attr;
use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::facts::Facts;
use tgc_ir::spec::{ContractSpec, ConvSpec, Group};
use tgc_ir::types::TensorType;
use tgc_ir::view::View;

use super::values::Rng;

/// A view whose output has these extents.
pub(super) fn view(rng: &mut Rng, output: &[Dim], facts: &Facts) -> Option<View> {
    let last = one_view(rng, output, facts)?;
    if rng.once_in(3) {
        let first = one_view(rng, &last.input_shape(), facts)?;
        return first.then(&last, facts);
    }
    Some(last)
}

fn one_view(rng: &mut Rng, output: &[Dim], facts: &Facts) -> Option<View> {
    match rng.below(12) {
        0 => Some(View::identity(output)),
        1..5 => Some(permutation(rng, output)),
        5..8 => reshape(rng, output, facts),
        8 | 9 => {
            let drop = rng.below(output.len() + 1);
            let from: Vec<Dim> = output[drop..]
                .iter()
                .map(|d| if rng.once_in(3) { Dim::ONE } else { d.clone() })
                .collect();
            View::expand(&from, output)
        }
        _ => slice(rng, output, facts),
    }
}

/// Axes in another order, sometimes without an input axis of extent 1.
fn permutation(rng: &mut Rng, output: &[Dim]) -> View {
    let mut axes: Vec<usize> = (0..output.len()).collect();
    rng.shuffle(&mut axes);
    let mut input = vec![Dim::ONE; output.len()];
    for (to, &from) in axes.iter().enumerate() {
        input[from] = output[to].clone();
    }
    if rng.once_in(4) {
        input.push(Dim::ONE);
    }
    View::permute(&input, &axes)
}

fn reshape(rng: &mut Rng, output: &[Dim], facts: &Facts) -> Option<View> {
    let mut input = output.to_vec();
    match rng.below(3) {
        // Two axes of the output are one of the input.
        0 if input.len() > 1 => {
            let at = rng.below(input.len() - 1);
            let right = input.remove(at + 1);
            input[at] = input[at].clone() * right;
        }
        // An axis of the output is two of the input.
        1 if !input.is_empty() => {
            let at = rng.below(input.len());
            let extent = input[at].as_const()?;
            let factor = (2..=extent).find(|f| extent % f == 0)?;
            input[at] = Dim::Const(factor);
            input.insert(at + usize::from(rng.once_in(2)), Dim::Const(extent / factor));
        }
        _ => {
            let at = rng.below(input.len() + 1);
            input.insert(at, Dim::ONE);
        }
    }
    let mut views = View::reshape(&input, output, facts)?;
    if views.len() == 1 { views.pop() } else { None }
}

/// Part of an axis, forwards, backwards or one index of it.
fn slice(rng: &mut Rng, output: &[Dim], facts: &Facts) -> Option<View> {
    let axis = rng.below(output.len() + 1);
    let before = Dim::Const(rng.below(3) as i64);
    let after = Dim::Const(rng.below(2) as i64);
    if axis == output.len() {
        let mut input = output.to_vec();
        let at = rng.below(output.len() + 1);
        input.insert(at, before.clone() + Dim::ONE + after);
        let one = View::slice(&input, at, before, 1, Dim::ONE);
        let keep: Vec<usize> = (0..input.len()).filter(|a| *a != at).collect();
        return one.then(&View::permute(&one.output_shape(), &keep), facts);
    }
    let extent = output[axis].clone();
    if extent.is(0) {
        return None;
    }
    let step = rng.pick(&[1, 2, -1]);
    let mut input = output.to_vec();
    input[axis] = (extent.clone() - Dim::ONE) * Dim::Const(i64::abs(step))
        + Dim::ONE
        + before.clone()
        + after;
    let start = if step < 0 { before + (extent.clone() - Dim::ONE) } else { before };
    Some(View::slice(&input, axis, start, step, extent))
}

/// A contraction with this result.
pub(super) fn contract(
    rng: &mut Rng,
    want: &TensorType,
    extents_of: &mut dyn FnMut(&mut Rng) -> Dim,
) -> Attr {
    let (mut extents, mut sides): (Vec<Dim>, [Vec<u32>; 2]) =
        (Vec::new(), [Vec::new(), Vec::new()]);
    let mut add = |extent: Dim, on: [bool; 2], sides: &mut [Vec<u32>; 2]| {
        let label = extents.len() as u32;
        extents.push(extent);
        (0..2).filter(|s| on[*s]).for_each(|s| sides[s].push(label));
        label
    };
    let roles = [[true, true], [true, false], [false, true]];
    let mut out: Vec<Group> = Vec::new();
    for dim in &want.shape {
        let mut group = Group::new();
        match dim.as_const() {
            Some(1) => {}
            Some(4) if rng.once_in(2) => {
                for _ in 0..2 {
                    group.push(add(Dim::Const(2), rng.pick(&roles), &mut sides));
                }
            }
            _ => group.push(add(dim.clone(), rng.pick(&roles), &mut sides)),
        }
        out.push(group);
    }
    for _ in 0..rng.below(3) {
        let both = if rng.once_in(16) { [true, false] } else { [true, true] };
        add(extents_of(rng), both, &mut sides);
    }
    let [lhs, rhs] = sides.map(|mut labels| {
        rng.shuffle(&mut labels);
        let mut axes: Vec<Group> = Vec::new();
        for label in labels {
            match axes.last_mut() {
                Some(last) if rng.once_in(4) => last.push(label),
                _ => axes.push(vec![label]),
            }
            if rng.once_in(8) {
                axes.push(Vec::new());
            }
        }
        axes
    });
    Attr::Contract(Arc::new(ContractSpec { extents, lhs, rhs, out, dtype: want.dtype }.canonical()))
}

/// A convolution with this result: its attribute and the types of x and w.
pub(super) fn conv(rng: &mut Rng, want: &TensorType) -> Option<(Attr, TensorType, TensorType)> {
    let spatial = want.rank().checked_sub(2).filter(|s| *s > 0)?;
    let groups = if want.shape[1].as_const().is_some_and(|c| c % 2 == 0 && c > 0) && rng.once_in(2)
    {
        2
    } else {
        1
    };
    let transposed = rng.once_in(4);
    let channels = Dim::Const(groups * (1 + rng.below(2) as i64));
    let mut spec = ConvSpec {
        groups,
        stride: Vec::new(),
        dilation: Vec::new(),
        pad_low: Vec::new(),
        pad_high: Vec::new(),
        transposed,
        output_pad: vec![0; spatial],
    };
    let (mut x, mut w) = (vec![want.shape[0].clone(), channels.clone()], Vec::new());
    let out = want.shape[1].clone();
    let per_group = |d: Dim| d.floor_div(&Dim::Const(groups));
    w.extend(if transposed { [channels, per_group(out)] } else { [out, per_group(channels)] });
    for dim in &want.shape[2..] {
        let [kernel, dilation, low, high] =
            [1 + rng.below(3), 1 + rng.below(2), rng.below(2), rng.below(2)].map(|v| v as i64);
        let stride = if transposed { 1 } else { 1 + rng.below(2) as i64 };
        let window = dilation * (kernel - 1);
        x.push(if transposed {
            dim.clone() - Dim::Const(window - low - high)
        } else {
            (dim.clone() - Dim::ONE) * Dim::Const(stride) + Dim::Const(window + 1 - low - high)
        });
        w.push(Dim::Const(kernel));
        spec.stride.push(stride);
        spec.dilation.push(dilation);
        spec.pad_low.push(Dim::Const(low));
        spec.pad_high.push(Dim::Const(high));
    }
    let ty = |shape: Vec<Dim>, dtype: DType| TensorType::new(dtype, shape);
    Some((Attr::Conv(Arc::new(spec)), ty(x, want.dtype), ty(w, want.dtype)))
}
