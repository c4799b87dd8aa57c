//! `conv`: implicit contraction. Rows are output positions of all images, columns output channels, k runs over taps
//! and input channels; a row is read through one start per tap, so that no cell is copied where channels are
//! contiguous. Few columns are dot products instead. One input channel per group goes through
//! [`super::conv_depthwise`], the gradient form through [`super::conv_phases`], other types through
//! [`super::conv_plain`].

use tgc_ir::DType;
use tgc_ir::Dim;
use tgc_ir::kernel_program::{Conv, Epilogue, Operand, axis};

use super::contract::{BoundContract, Left, Right};
use super::staging::{Given, Image, Windows};
use super::windowed::{Rule, Weights, Windowed};
use super::{Bound, Launch, conv_depthwise, conv_phases as phases, conv_plain};
use crate::cpu::error::CpuError;
use crate::cpu::exec::Exec;
use crate::cpu::kernels::gemm::PanelShape;
use crate::cpu::kernels::region::Region;
use crate::cpu::program::{Binder, count};

/// Extents of a convolution.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) groups: usize,
    /// Input channels per group.
    pub(super) c: usize,
    /// Output channels per group.
    pub(super) o: usize,
    pub(super) windows: Windows,
}

/// Channels below which the taps of a line are read as one run of staged memory.
const NARROW: usize = 8;
/// The same for dot products, which want runs of several vectors.
const RUN: usize = 64;

/// Time to sum the lanes of a vector, in products.
const SUM: usize = 8;

/// Kernels that run one after the other.
#[derive(Debug)]
struct InTurn(Vec<Bound>);

impl Launch for InTurn {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        self.0.iter().for_each(|part| part.run(exec, regions));
    }
}

pub(super) fn shape(cx: &Binder<'_>, a: &Conv) -> Result<Shape, CpuError> {
    let rank = a.in_spatial.len();
    let lengths =
        [a.out_spatial.len(), a.kernel.len(), a.stride.len(), a.dilation.len(), a.pad_low.len()];
    if lengths.iter().any(|&l| l != rank)
        || a.groups < 1
        || a.stride.iter().chain(&a.dilation).any(|&s| s < 1)
    {
        return Err(cx.malformed("spatial attributes disagree in rank or are not positive"));
    }
    Ok(Shape {
        batch: cx.extent(&a.batch)?,
        groups: a.groups as usize,
        c: cx.extent(&a.in_channels)?,
        o: cx.extent(&a.out_channels)?,
        windows: Windows {
            input: cx.extents(&a.in_spatial)?,
            output: cx.extents(&a.out_spatial)?,
            kernel: cx.extents(&a.kernel)?,
            stride: a.stride.clone(),
            dilation: a.dilation.clone(),
            pad: a.pad_low.iter().map(|d| cx.number(d)).collect::<Result<_, _>>()?,
        },
    })
}

pub(super) fn bind(cx: &Binder<'_>, a: &Conv) -> Result<Bound, CpuError> {
    let mut shape = shape(cx, a)?;
    if a.transposed
        && a.acc == DType::F32
        && let Some(parts) = phases::split(&shape, a)
    {
        let bind = |(i, part): (usize, Conv)| bind(&cx.part(i as i64), &part);
        let parts = parts.into_iter().enumerate().map(bind).collect::<Result<_, _>>()?;
        return Ok(Box::new(InTurn(parts)));
    }
    if a.acc != DType::F32 || a.transposed {
        return Ok(Box::new(conv_plain::bind(cx, a, shape)?));
    }
    shape.windows = shape.windows.with_an_axis();
    if shape.c == 1 && shape.groups > 1 {
        return Ok(Box::new(conv_depthwise::bind(cx, a, shape)?));
    }
    let w = &shape.windows;
    let images = [shape.batch as i64];
    let few = prefers_dots(&shape, cx.isa.lanes());
    let given = Given {
        operand: &a.input,
        images: &images,
        channels: shape.groups * shape.c,
        group: shape.c,
        fill: 0.0,
        merge_below: Some(if few { RUN } else { NARROW }),
    };
    let image = Image::bind(cx, &given, w.clone())?;
    let rows = [&images[..], &w.output].concat();
    let batch = [shape.groups as i64];
    let panels = PanelShape::new(cx.isa, count(&w.kernel) * shape.c, shape.o);
    let k = [&w.kernel[..], &[shape.c as i64]].concat();
    let filter = filter(&a.filter, w.rank(), shape.o);
    let n = [shape.o as i64];
    let epilogue = epilogue(&a.epilogue, w.rank(), shape.o);
    let epilogue = cx.epilogue(&epilogue, [&batch, &rows, &n], 1, false)?;
    if few {
        let rows_last = |at: usize| match at {
            0 => Dim::ZERO,
            at if at == w.rank() + 2 => axis(0),
            at => axis(at),
        };
        let weights = Weights::bind(cx, &filter.with_axes(&rows_last), &n, &k)?;
        let rule = Rule::Dots(weights);
        return Ok(Box::new(Windowed::new(image, shape.o, panels.k, rule, Vec::new(), epilogue)));
    }
    let right = Right::bind(cx, &filter, panels, &batch, [&k, &n])?;
    let left = Left::Windows { image: Box::new(image), group: shape.c };
    Ok(Box::new(BoundContract::new(batch.to_vec(), count(&rows), panels, left, right, epilogue)))
}

/// Columns that would leave most of a vector empty, and windows long enough to pay for summing the lanes.
fn prefers_dots(shape: &Shape, lanes: usize) -> bool {
    let kernel = &shape.windows.kernel;
    let (lines, line) = (count(&kernel[..kernel.len() - 1]), kernel[kernel.len() - 1] as usize);
    let vectors = lines * (line * shape.c).div_ceil(lanes) + SUM;
    shape.groups == 1 && 2 * shape.o <= lanes && shape.o * vectors < lines * line * shape.c
}

/// The filter over group, taps, input channel, output channel of the group.
fn filter(filter: &Operand, rank: usize, o: usize) -> Operand {
    let column = axis(0) * Dim::Const(o as i64) + axis(rank + 2);
    filter.with_axes(&|n| match n {
        0 => column.clone(),
        1 => axis(rank + 1),
        n => axis(n - 1),
    })
}

/// The epilogue over group, image, positions, output channel of the group.
fn epilogue(epilogue: &Epilogue, rank: usize, o: usize) -> Epilogue {
    let column = axis(0) * Dim::Const(o as i64) + axis(rank + 2);
    epilogue.with_axes(&|n| match n {
        0 => axis(1),
        1 => column.clone(),
        n => axis(n),
    })
}
