//! Convolutions and pooling.

use tgc_ir::kernel_program::{
    Access, Anchor, Body, Buffer, Conv, Epilogue, InstKind, KernelProgram, Pool, PoolDivisor,
    ReduceOp, Store, axis,
};
use tgc_ir::{DType, Tensor};

use super::{Draw, argument, check, dims, kernel, plain, store_slot};

const F32: DType = DType::F32;

#[derive(Clone)]
struct Case {
    batch: i64,
    groups: i64,
    c: i64,
    o: i64,
    input: Vec<i64>,
    kernel: Vec<i64>,
    stride: Vec<i64>,
    dilation: Vec<i64>,
    pad: i64,
    transposed: bool,
    dtype: DType,
}

fn case(groups: i64, c: i64, o: i64, input: &[i64], kernel: &[i64], stride: i64, pad: i64) -> Case {
    let rank = input.len();
    Case {
        batch: 2,
        groups,
        c,
        o,
        input: input.to_vec(),
        kernel: kernel.to_vec(),
        stride: vec![stride; rank],
        dilation: vec![1; rank],
        pad,
        transposed: false,
        dtype: F32,
    }
}

impl Case {
    fn output(&self) -> Vec<i64> {
        (0..self.input.len())
            .map(|i| {
                let reach = (self.kernel[i] - 1) * self.dilation[i];
                if self.transposed {
                    (self.input[i] - 1) * self.stride[i] + reach + 1 - 2 * self.pad
                } else {
                    (self.input[i] + 2 * self.pad - reach - 1) / self.stride[i] + 1
                }
            })
            .collect()
    }

    fn program(&self, constant: bool) -> KernelProgram {
        let axes: Vec<usize> = (0..2 + self.input.len()).collect();
        let space = |n: i64, c: i64, s: &[i64]| [&[n, c], s].concat();
        let (channels, outputs) = (self.groups * self.c, self.groups * self.o);
        let filter = if self.transposed { [channels, self.o] } else { [outputs, self.c] };
        let mut weights = argument(Access::Read, self.dtype, &[&filter[..], &self.kernel].concat());
        weights.constant = constant;
        kernel(
            vec![
                argument(Access::Read, self.dtype, &space(self.batch, channels, &self.input)),
                weights,
                argument(Access::Write, self.dtype, &space(self.batch, outputs, &self.output())),
            ],
            Anchor::Conv(Conv {
                batch: tgc_ir::Dim::Const(self.batch),
                groups: self.groups,
                in_channels: tgc_ir::Dim::Const(self.c),
                out_channels: tgc_ir::Dim::Const(self.o),
                in_spatial: dims(&self.input),
                out_spatial: dims(&self.output()),
                kernel: dims(&self.kernel),
                stride: self.stride.clone(),
                dilation: self.dilation.clone(),
                pad_low: dims(&vec![self.pad; self.input.len()]),
                transposed: self.transposed,
                input: plain(self.dtype, 0, &axes),
                filter: plain(self.dtype, 1, &axes),
                acc: self.dtype,
                epilogue: store_slot(self.dtype, 2, axes.len()),
            }),
        )
    }

    fn check(&self) {
        for last in [[false, false], [true, false], [false, true], [true, true]] {
            self.check_order(last);
        }
    }

    /// With channels of input and result last in memory, or first.
    fn check_order(&self, last: [bool; 2]) {
        let mut draw = Draw::new(9);
        let order = |mut program: KernelProgram| {
            for (buffer, last) in [0, 2].into_iter().zip(last) {
                if last {
                    channels_last(&mut program.buffers[buffer]);
                }
            }
            program
        };
        let program = order(self.program(false));
        let size = |b: usize| -> Vec<usize> {
            program.buffers[b].shape.iter().map(|d| d.as_const().unwrap() as usize).collect()
        };
        let data = [
            draw.tensor(self.dtype, &size(0)),
            draw.tensor(self.dtype, &size(1)),
            Tensor::zeros(self.dtype, &size(2)),
        ];
        check(&program, &data, 3e-6);
        check(&order(self.program(true)), &data, 3e-6);
    }
}

/// Gives a buffer the strides of its axes in the order 0, 2, 3, …, 1.
fn channels_last(buffer: &mut Buffer) {
    let order: Vec<usize> = [0].into_iter().chain(2..buffer.shape.len()).chain([1]).collect();
    let shape: Vec<_> = order.iter().map(|&a| buffer.shape[a].clone()).collect();
    for (a, stride) in order.into_iter().zip(Buffer::dense_strides(&shape)) {
        buffer.strides[a] = stride;
    }
}

#[test]
fn dense_convolutions_match() {
    case(1, 3, 5, &[9, 11], &[3, 3], 1, 1).check();
    case(1, 2, 9, &[8, 7], &[1, 1], 1, 0).check();
    case(1, 3, 4, &[11, 9], &[5, 3], 2, 2).check();
    case(1, 2, 3, &[40], &[7], 3, 3).check();
    case(1, 2, 2, &[4, 5, 6], &[2, 3, 3], 2, 1).check();
    case(1, 4, 33, &[12, 14], &[3, 3], 1, 0).check();
    case(1, 19, 21, &[9, 10], &[3, 3], 1, 1).check();
    case(1, 17, 1, &[9, 10], &[3, 5], 1, 2).check();
    // Every window leaves the image.
    case(1, 19, 21, &[2, 3], &[5, 5], 1, 2).check();
    case(1, 9, 12, &[1, 1], &[3, 3], 1, 1).check();
    case(9, 1, 1, &[2, 2], &[5, 5], 2, 2).check();
    case(1, 5, 3, &[6, 40], &[2, 33], 2, 3).check();
    case(1, 2, 3, &[70], &[66], 1, 30).check();
}

#[test]
fn grouped_dilated_and_depthwise_convolutions_match() {
    case(2, 3, 2, &[7, 8], &[3, 3], 1, 1).check();
    case(6, 1, 1, &[7, 7], &[3, 3], 1, 1).check();
    case(5, 1, 2, &[10, 13], &[5, 5], 2, 2).check();
    case(3, 1, 1, &[60, 50], &[3, 3], 1, 1).check();
    case(4, 1, 1, &[33], &[9], 1, 4).check();
    let mut dilated = case(1, 2, 3, &[12, 12], &[3, 3], 1, 2);
    dilated.dilation = vec![2, 3];
    dilated.check();
    let mut both = case(1, 2, 3, &[13, 12], &[3, 2], 2, 1);
    both.dilation = vec![2, 3];
    both.check();
}

#[test]
fn transposed_and_exact_convolutions_match() {
    let mut up = case(1, 3, 2, &[5, 4], &[3, 3], 2, 1);
    up.transposed = true;
    up.check();
    for (kernel, stride, dilation, pad, groups) in [
        ([2, 2], 2, 1, 0, 1),
        ([4, 4], 2, 1, 1, 1),
        ([5, 3], 1, 1, 1, 2),
        ([3, 4], 3, 2, 2, 1),
        ([1, 2], 3, 1, 0, 1),
        ([3, 3], 2, 2, 1, 3),
    ] {
        up.kernel = kernel.to_vec();
        up.stride = vec![stride; 2];
        up.dilation = vec![dilation; 2];
        (up.pad, up.groups) = (pad, groups);
        up.check();
    }
    up.groups = 2;
    up.dtype = DType::F64;
    up.check();
    let mut int = case(1, 3, 2, &[6, 5], &[3, 3], 1, 1);
    int.dtype = DType::I32;
    int.check();
}

fn pool(
    op: ReduceOp,
    divisor: PoolDivisor,
    dtype: DType,
    index: bool,
    spatial: &[i64],
    window: &[i64],
    stride: i64,
    pad: i64,
) -> KernelProgram {
    let rank = spatial.len();
    let out: Vec<i64> =
        (0..rank).map(|i| (spatial[i] + 2 * pad - window[i]) / stride + 1).collect();
    let axes: Vec<usize> = (0..2 + rank).collect();
    let mut body = Body::default();
    let value = body.push(dtype, InstKind::Slot(0));
    let place: Vec<_> = axes.iter().map(|&a| axis(a)).collect();
    let mut stores = vec![Store { buffer: 1, index: place.clone(), value }];
    let full = [&[2, 3], &out[..]].concat();
    let mut buffers = vec![
        argument(Access::Read, dtype, &[&[2, 3], spatial].concat()),
        argument(Access::Write, dtype, &full),
    ];
    if index {
        let at = body.push(DType::I64, InstKind::Slot(1));
        stores.push(Store { buffer: 2, index: place, value: at });
        buffers.push(argument(Access::Write, DType::I64, &full));
    }
    kernel(
        buffers,
        Anchor::Pool(Pool {
            outer: dims(&[2, 3]),
            in_spatial: dims(spatial),
            out_spatial: dims(&out),
            kernel: window.to_vec(),
            stride: vec![stride; rank],
            dilation: vec![1; rank],
            pad_low: dims(&vec![pad; rank]),
            pad_high: dims(&vec![pad; rank]),
            op,
            divisor,
            input: plain(dtype, 0, &axes),
            epilogue: Epilogue { body, stores },
        }),
    )
}

#[test]
fn pooling_matches() {
    let mut draw = Draw::new(10);
    for (op, divisor) in [
        (ReduceOp::Max, PoolDivisor::One),
        (ReduceOp::Sum, PoolDivisor::One),
        (ReduceOp::Sum, PoolDivisor::ValidCount),
        (ReduceOp::Sum, PoolDivisor::PaddedCount),
    ] {
        for (spatial, window, stride, pad) in [
            (vec![8, 9], vec![3, 3], 2, 1),
            (vec![20], vec![4], 1, 0),
            (vec![40, 70], vec![2, 2], 1, 1),
        ] {
            for (dtype, index) in [(F32, false), (F32, op == ReduceOp::Max), (DType::F64, false)] {
                let mut program = pool(op, divisor, dtype, index, &spatial, &window, stride, pad);
                if pad == 1 {
                    program.buffers.iter_mut().for_each(channels_last);
                }
                let data: Vec<Tensor> = program
                    .buffers
                    .iter()
                    .map(|b| {
                        let shape: Vec<usize> =
                            b.shape.iter().map(|d| d.as_const().unwrap() as usize).collect();
                        match b.access {
                            Access::Read => draw.tensor(b.dtype, &shape),
                            _ => Tensor::zeros(b.dtype, &shape),
                        }
                    })
                    .collect();
                check(&program, &data, 1e-6);
            }
        }
    }
}
