//! Loops whose index expressions are piecewise: cut into boxes, equal to the reference.

use smallvec::smallvec;
use tgc_ir::dim::Dim;
use tgc_ir::kernel_program::{
    Access, Anchor, Body, Epilogue, Guard, InstKind, KernelProgram, Load, Loops, ScalarConst,
    Store, axis,
};
use tgc_ir::scalar::ScalarOp;
use tgc_ir::{DType, Tensor};

use crate::cpu::boxes::split;

use super::{Draw, argument, check, dims, kernel};

const F32: DType = DType::F32;

fn load(index: Vec<Dim>, guards: Vec<Guard>, otherwise: Option<u32>) -> InstKind {
    InstKind::Load(Load { buffer: 0, index, guards, otherwise })
}

fn program(input: &[i64], output: &[i64], body: impl Fn(&mut Body) -> u32) -> KernelProgram {
    let mut code = Body::default();
    let value = body(&mut code);
    let index = (0..output.len()).map(axis).collect();
    kernel(
        vec![argument(Access::Read, F32, input), argument(Access::Write, F32, output)],
        Anchor::Loops(Loops {
            extents: dims(output),
            epilogue: Epilogue { body: code, stores: vec![Store { buffer: 1, index, value }] },
        }),
    )
}

/// The kernel equals the reference, and is cut into this many boxes without a division left.
fn matches(program: &KernelProgram, boxes: usize) {
    let Anchor::Loops(loops) = &program.anchor else { panic!("made above") };
    let extents: Vec<i64> = loops.extents.iter().map(|d| d.as_const().unwrap()).collect();
    let parts = split(&extents, &loops.epilogue, &|_| None);
    assert_eq!(parts.len(), boxes);
    assert!(parts.iter().all(|part| part.ragged().is_empty()));
    let mut draw = Draw::new(77);
    let size = |b: usize| -> Vec<usize> {
        program.buffers[b].shape.iter().map(|d| d.as_const().unwrap() as usize).collect()
    };
    check(program, &[draw.tensor(F32, &size(0)), Tensor::zeros(F32, &size(1))], 0.0);
}

/// The value where `0 <= place < below`, else `other`.
fn choose(body: &mut Body, place: &Dim, below: i64, value: u32, other: u32) -> u32 {
    let place = body.push(DType::I64, InstKind::Index(place.clone()));
    let below = body.push(DType::I64, InstKind::Index(Dim::Const(below)));
    let zero = body.push(DType::I64, InstKind::Const(ScalarConst::Int(0)));
    let scalar =
        |body: &mut Body, op, a, b| body.push(DType::Bool, InstKind::Scalar(op, smallvec![a, b]));
    let low = scalar(body, ScalarOp::Le, zero, place);
    let high = scalar(body, ScalarOp::Lt, place, below);
    let both = scalar(body, ScalarOp::And, low, high);
    body.push(F32, InstKind::Scalar(ScalarOp::Select, smallvec![both, value, other]))
}

#[test]
fn concatenations_and_padding_match() {
    let concat = program(&[3, 40, 32], &[7, 60, 32], |b| {
        // Two shifted copies along each axis, with a border of another value.
        let border = super::float(b, 0.25);
        let mut value = border;
        for (rows, columns) in [(1, 15), (4, -20)] {
            let (r, c) = (axis(0) - Dim::Const(rows), axis(1) - Dim::Const(columns));
            let guards = vec![
                Guard { value: r.clone(), below: Dim::Const(3) },
                Guard { value: c.clone(), below: Dim::Const(40) },
            ];
            let loaded =
                b.push(F32, load(vec![r.clone(), c.clone(), axis(2)], guards, Some(border)));
            value = choose(b, &r, 3, loaded, value);
        }
        value
    });
    matches(&concat, 12);
}

#[test]
fn divided_and_rotated_axes_match() {
    let n = |x: i64| Dim::Const(x);
    // Windows of 4 x 4 of a rotated 8 x 8 image, as window partitions are spelled.
    let windows = program(&[8, 8, 48], &[64, 48], |b| {
        let (window, cell) = (axis(0).floor_div(&n(16)), axis(0).modulo(&n(16)));
        let y = window.floor_div(&n(2)) * n(4) + cell.floor_div(&n(4)) + n(3);
        let x = window.modulo(&n(2)) * n(4) + cell.modulo(&n(4)) + n(2);
        b.push(F32, load(vec![y.modulo(&n(8)), x.modulo(&n(8)), axis(1)], Vec::new(), None))
    });
    matches(&windows, 16);
    // Nearest neighbours by a whole factor, by a fraction, and clamped.
    let nearest = program(&[6, 9, 64], &[12, 15, 64], |b| {
        let y = axis(0).floor_div(&n(2));
        let x = (axis(1) * n(9)).floor_div(&n(15));
        b.push(F32, load(vec![y, x.minimum(&n(8)).maximum(&n(0)), axis(2)], Vec::new(), None))
    });
    matches(&nearest, 9);
}
