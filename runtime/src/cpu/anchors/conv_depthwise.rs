//! Convolution with one input channel per group: each output channel is a weighted window over one channel.

use tgc_ir::Dim;
use tgc_ir::kernel_program::{Conv, axis};

use super::conv::Shape;
use super::staging::{Given, Image};
use super::windowed::{Rule, Weights, Windowed};
use crate::cpu::error::CpuError;
use crate::cpu::program::{Binder, count};

pub(super) fn bind(cx: &Binder<'_>, a: &Conv, shape: Shape) -> Result<Windowed, CpuError> {
    let (w, o) = (&shape.windows, shape.o);
    let (images, outputs) = ([shape.batch as i64], shape.groups * o);
    // With several outputs per group a channel is read as often.
    let spread = a.input.with_axes(&|n| match n {
        1 => axis(1).floor_div(&Dim::Const(o as i64)),
        n => axis(n),
    });
    let given = Given {
        operand: if o == 1 { &a.input } else { &spread },
        images: &images,
        channels: outputs,
        group: outputs,
        fill: 0.0,
        merge_below: None,
    };
    let image = Image::bind(cx, &given, w.clone())?;
    let columns = [outputs as i64];
    let filter = a.filter.with_axes(&|n| match n {
        0 => axis(w.rank()),
        1 => Dim::ZERO,
        n => axis(n - 2),
    });
    let weights = Weights::bind(cx, &filter, &w.kernel, &columns)?;
    let taps = count(&w.kernel);
    let rows = [&images[..], &w.output].concat();
    let epilogue = a.epilogue.with_axes(&|n| match n {
        0 => axis(0),
        1 => axis(1 + w.rank()),
        n => axis(n - 1),
    });
    let epilogue = cx.epilogue(&epilogue, [&[], &rows, &columns], 1, false)?;
    Ok(Windowed::new(image, outputs, taps, Rule::Weighted(weights), Vec::new(), epilogue))
}
