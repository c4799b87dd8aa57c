//! The gradient form as convolutions: output positions of one remainder by the stride meet the same taps, one step
//! apart, so that each remainder (phase) is a convolution of step one over some of the taps.
//!
//! Along an axis with stride s, dilation d and padding p, position y meets cell x through tap k where
//! y + p = x s + k d. With y + p = q s + r the taps of remainder r are k0, k0 + m, k0 + 2m, … for m = s / gcd(s, d), and
//! tap number j meets cell q + (r - k0 d) / s - j d / gcd(s, d).

use tgc_ir::Dim;
use tgc_ir::kernel_program::{Conv, axis};

use super::conv::Shape;
use super::staging::points;

/// One remainder along one axis.
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// First output position, and their number; the distance is the stride.
    first: i64,
    count: i64,
    /// First tap, distance of taps, their number.
    tap: i64,
    every: i64,
    taps: i64,
    /// Distance of neighbouring cells, and cells before the first.
    dilation: i64,
    pad: i64,
}

/// The convolutions that together give every output; `None` when some output meets no tap.
pub(super) fn split(shape: &Shape, a: &Conv) -> Option<Vec<Conv>> {
    let axes: Vec<Vec<Phase>> =
        (0..shape.windows.input.len()).map(|i| phases(shape, i)).collect::<Option<_>>()?;
    let counts: Vec<i64> = axes.iter().map(|p| p.len() as i64).collect();
    let parts = points(&counts)
        .map(|at| axes.iter().zip(at).map(|(p, i)| p[i as usize]).collect::<Vec<Phase>>());
    Some(parts.map(|phases| part(shape, a, &phases)).collect())
}

/// The phases of axis `i` that have outputs.
fn phases(shape: &Shape, i: usize) -> Option<Vec<Phase>> {
    let w = &shape.windows;
    let (s, d, pad, outputs, kernel) =
        (w.stride[i], w.dilation[i], w.pad[i], w.output[i], w.kernel[i]);
    let common = gcd(s, d);
    let mut out = Vec::new();
    for first in 0..s.min(outputs) {
        let (q, r) = ((first + pad).div_euclid(s), (first + pad).rem_euclid(s));
        let tap = (0..kernel).find(|k| (r - k * d).rem_euclid(s) == 0)?;
        let (every, dilation) = (s / common, d / common);
        let taps = (kernel - tap + every - 1) / every;
        // The first output meets cell `nearest` through the first tap, earlier cells through later ones.
        let nearest = q + (r - tap * d) / s;
        let pad = (taps - 1) * dilation - nearest;
        let count = (outputs - first + s - 1) / s;
        out.push(Phase { first, count, tap, every, taps, dilation, pad });
    }
    Some(out)
}

fn part(shape: &Shape, a: &Conv, phases: &[Phase]) -> Conv {
    let list = |f: fn(&Phase) -> i64| phases.iter().map(|p| Dim::Const(f(p))).collect::<Vec<Dim>>();
    let outputs = Dim::Const(shape.o as i64);
    let group = axis(0).floor_div(&outputs);
    let filter = a.filter.with_axes(&|n| match n {
        0 => group.clone() * Dim::Const(shape.c as i64) + axis(1),
        1 => axis(0).modulo(&outputs),
        // Cells in ascending order meet taps in descending order.
        n => {
            let p = phases[n - 2];
            Dim::Const(p.tap + (p.taps - 1) * p.every) - axis(n) * Dim::Const(p.every)
        }
    });
    let epilogue = a.epilogue.with_axes(&|n| match n {
        0 | 1 => axis(n),
        n => axis(n) * Dim::Const(shape.windows.stride[n - 2]) + Dim::Const(phases[n - 2].first),
    });
    Conv {
        out_spatial: list(|p| p.count),
        kernel: list(|p| p.taps),
        stride: vec![1; phases.len()],
        dilation: phases.iter().map(|p| p.dilation).collect(),
        pad_low: list(|p| p.pad),
        transposed: false,
        filter,
        epilogue,
        ..a.clone()
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
