//! Every anchor against the reference, on every instruction set of the machine and several thread counts.

mod anchors;
mod bodies;
mod boxes;
mod engine;
mod products;
mod windows;

use std::collections::BTreeMap;

use tgc_ir::bind::Binding;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::eval::{KernelData, Mode, run_kernel};
use tgc_ir::kernel_program::{
    Access, Anchor, Body, Buffer, Epilogue, InstKind, KernelProgram, Load, Operand, ScalarConst,
    Store, axis,
};
use tgc_ir::scalar::{ScalarOp, Value};
use tgc_ir::{DType, Tensor};

use super::exec::{Exec, Memory};
use super::kernels::Isa;
use super::kernels::pool::Pool;
use super::kernels::region::{self, Region};
use super::program::{CpuProgram, Packs};

/// A small deterministic generator.
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// In [-1, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub(super) fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let count = shape.iter().product();
        let values: Vec<Value> = (0..count)
            .map(|_| match dtype {
                DType::Bool => Value::Int(i128::from(self.next() & 1)),
                d if d.is_float() => Value::Float(self.unit() * 2.0),
                d => {
                    let (low, high) = d.int_range();
                    Value::Int((i128::from(self.next() % 41) - 20).clamp(low, high))
                }
            })
            .collect();
        Tensor::from_values(dtype, shape, &values)
    }
}

pub(super) fn dims(extents: &[i64]) -> Vec<Dim> {
    extents.iter().map(|&e| Dim::Const(e)).collect()
}

/// A dense argument.
pub(super) fn argument(access: Access, dtype: DType, shape: &[i64]) -> Buffer {
    let shape = dims(shape);
    Buffer { access, dtype, strides: Buffer::dense_strides(&shape), shape, constant: false }
}

pub(super) fn load(buffer: u32, index: Vec<Dim>) -> InstKind {
    InstKind::Load(Load { buffer, index, guards: Vec::new(), otherwise: None })
}

/// An operand that is one plain load with the body's axes in order.
pub(super) fn plain(dtype: DType, buffer: u32, axes: &[usize]) -> Operand {
    let mut body = Body::default();
    let value = body.push(dtype, load(buffer, axes.iter().map(|&a| axis(a)).collect()));
    Operand { body, value }
}

/// Stores slot 0 with the body's axes in order.
pub(super) fn store_slot(dtype: DType, buffer: u32, rank: usize) -> Epilogue {
    let mut body = Body::default();
    let value = body.push(dtype, InstKind::Slot(0));
    Epilogue { body, stores: vec![Store { buffer, index: (0..rank).map(axis).collect(), value }] }
}

pub(super) fn scalar(body: &mut Body, dtype: DType, op: ScalarOp, args: &[u32]) -> u32 {
    body.push(dtype, InstKind::Scalar(op, args.iter().copied().collect()))
}

pub(super) fn float(body: &mut Body, x: f64) -> u32 {
    body.push(DType::F32, InstKind::Const(ScalarConst::float(x)))
}

pub(super) fn kernel(buffers: Vec<Buffer>, anchor: Anchor) -> KernelProgram {
    KernelProgram { name: "test".into(), buffers, anchor }
}

/// Memory of one argument during a test.
struct Cell {
    memory: super::kernels::buffer::Buffer,
    bytes: usize,
}

impl Cell {
    fn new(tensor: &Tensor) -> Self {
        let bytes = tensor.bytes().len();
        let mut memory = super::kernels::buffer::Buffer::zeroed(bytes.max(1));
        memory.copy_in(tensor.bytes());
        Self { memory, bytes }
    }

    fn region(&mut self) -> Region {
        region::of_buffer(&mut self.memory).part(0, self.bytes)
    }
}

/// Runs a kernel on the device; gives the contents of every argument afterwards.
pub(super) fn on_device(
    kernel: &KernelProgram,
    symbols: &BTreeMap<String, i64>,
    data: &[Tensor],
    isa: Isa,
    threads: usize,
) -> Vec<Tensor> {
    let mut cells: Vec<Cell> = data.iter().map(Cell::new).collect();
    let regions: Vec<Region> = cells.iter_mut().map(Cell::region).collect();
    let constants: Vec<Option<Region>> =
        kernel.buffers.iter().zip(&regions).map(|(b, r)| b.constant.then_some(*r)).collect();
    let lookup = |s: &Symbol| symbols.get(s.name()).copied();
    let program = CpuProgram::bind(kernel, &lookup, isa, &constants, &Packs::default()).unwrap();
    let pool = Pool::new(threads).unwrap();
    let memory = Memory::new(threads);
    let exec = Exec { isa, pool: &pool, memory: &memory };
    program.run(exec, &regions);
    let read = |(cell, tensor): (&Cell, &Tensor)| {
        let count = tensor.len();
        let region = region::of_shared(&cell.memory).part(0, cell.bytes);
        let values: Vec<Value> = (0..count)
            .map(|i| region::element(region, tensor.dtype(), i as i64).unwrap())
            .collect();
        Tensor::from_values(tensor.dtype(), tensor.shape(), &values)
    };
    cells.iter().zip(data).map(read).collect()
}

/// Compares the device with the reference on all written arguments: relative to the largest magnitude of the
/// argument for floats, exactly for the rest; and thread counts bit by bit.
pub(super) fn check_with(
    kernel: &KernelProgram,
    symbols: &[(&str, i64)],
    data: &[Tensor],
    tolerance: f64,
) {
    let table: BTreeMap<String, i64> = symbols.iter().map(|(s, v)| ((*s).to_owned(), *v)).collect();
    let mut binding = Binding::default();
    for (s, v) in symbols {
        binding.0.insert(Symbol::new(s), *v);
    }
    let mut expected: Vec<KernelData> = data.iter().map(KernelData::from_tensor).collect();
    run_kernel(kernel, &binding, &mut expected, Mode::Exact).unwrap();
    for isa in Isa::available() {
        let single = on_device(kernel, &table, data, isa, 1);
        let several = on_device(kernel, &table, data, isa, 3);
        for (i, buffer) in kernel.buffers.iter().enumerate() {
            if buffer.access == Access::Read {
                continue;
            }
            assert_eq!(
                single[i].bytes(),
                several[i].bytes(),
                "{}: threads change argument {i}",
                isa.name()
            );
            let expected = expected[i].to_tensor(data[i].shape()).unwrap();
            compare(isa, i, &expected, &single[i], tolerance);
        }
    }
}

fn compare(isa: Isa, argument: usize, expected: &Tensor, found: &Tensor, tolerance: f64) {
    let finite = |v: &f64| v.is_finite();
    let scale = expected
        .to_f64()
        .into_iter()
        .filter(finite)
        .fold(0.0, |m: f64, x| m.max(x.abs()))
        .max(1e-30);
    for i in 0..expected.len() {
        let (e, f) = (expected.value(i), found.value(i));
        let (x, y) = (e.as_f64(), f.as_f64());
        let same = if expected.dtype().is_float() {
            x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= tolerance * scale
        } else {
            e == f
        };
        assert!(same, "{}: argument {argument} element {i} is {y}, should be {x}", isa.name());
    }
}

pub(super) fn check(kernel: &KernelProgram, data: &[Tensor], tolerance: f64) {
    check_with(kernel, &[], data, tolerance);
}
