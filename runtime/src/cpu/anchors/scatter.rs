//! `scatter`: initial contents, then updates at computed places, in row-major order on one thread.

use tgc_ir::DType;
use tgc_ir::kernel_program::{Body, InstKind, Operand, Scatter, ScatterOp, Store, axis};
use tgc_ir::scalar::{ScalarOp, Value};

use super::Launch;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE};
use crate::cpu::kernels::region::{self, Region};
use crate::cpu::kernels::slots::Kind;
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Scratch, Tile};

#[derive(Debug)]
pub(super) struct BoundScatter {
    init: Option<(Program, usize)>,
    updates: usize,
    program: Program,
    op: ScatterOp,
    target: usize,
    dtype: DType,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

pub(super) fn bind(cx: &Binder<'_>, a: &Scatter) -> Result<BoundScatter, CpuError> {
    let target = a.store.buffer as usize;
    let Some(buffer) = cx.kernel.buffers.get(target) else {
        return Err(cx.malformed("no such argument"));
    };
    let shape = cx.extents(&buffer.shape)?;
    let init =
        a.init.as_ref().map(|init| bind_init(cx, a.store.buffer, init, &shape)).transpose()?;
    let updates = cx.extents(&a.updates)?;
    let (body, results) = with_indices(&a.body, &a.store);
    let program = cx.values(&body, &results, [&[], &[], &updates])?;
    let (dtype, strides) = cx.buffers[target].clone();
    Ok(BoundScatter {
        init,
        updates: count(&updates),
        program,
        op: a.op,
        target,
        dtype,
        shape,
        strides,
    })
}

/// The initial contents as a loop over the output.
fn bind_init(
    cx: &Binder<'_>,
    buffer: u32,
    init: &Operand,
    shape: &[i64],
) -> Result<(Program, usize), CpuError> {
    let store = Store { buffer, index: (0..shape.len()).map(axis).collect(), value: init.value };
    let epilogue =
        tgc_ir::kernel_program::Epilogue { body: init.body.clone(), stores: vec![store] };
    Ok((cx.epilogue(&epilogue, [&[], &[], shape], 0, false)?, count(shape)))
}

/// The update body with the store's index expressions as further results: (body, value and indices).
fn with_indices(body: &Body, store: &Store) -> (Body, Vec<u32>) {
    let mut body = body.clone();
    let mut results = vec![store.value];
    for dim in &store.index {
        results.push(body.push(DType::I64, InstKind::Index(dim.clone())));
    }
    (body, results)
}

impl Launch for BoundScatter {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let scratch = &mut exec.worker(0).scratch;
        if let Some((program, cells)) = &self.init {
            sweep(exec, scratch, regions, program, *cells, |_, _| {});
        }
        sweep(exec, scratch, regions, &self.program, self.updates, |scratch, n| {
            let places = self.places(scratch, n);
            let (value, kind) = self.program.results[0];
            for (i, place) in places.iter().enumerate() {
                if let Some(at) = place {
                    self.combine(scratch, value, kind, i, regions[self.target], *at);
                }
            }
        });
    }
}

/// Runs a program over `cells` points in order, calling `visit` after each tile.
fn sweep(
    exec: Exec<'_>,
    scratch: &mut Scratch,
    regions: &[Region],
    program: &Program,
    cells: usize,
    mut visit: impl FnMut(&mut Scratch, usize),
) {
    program.shape(scratch, TILE);
    let mut col = 0;
    while col < cells {
        let width = TILE.min(cells - col);
        program.run(exec.isa, scratch, regions, &Tile { fixed: &[], row: 0, rows: 1, col, width });
        visit(scratch, width);
        col += width;
    }
}

impl BoundScatter {
    /// Element of the output for each update of a tile; `None` outside.
    fn places(&self, scratch: &mut Scratch, n: usize) -> Vec<Option<usize>> {
        let mut places = vec![Some(0); n];
        for (axis, (slot, _)) in self.program.results[1..].iter().enumerate() {
            let index = scratch.slots.slice::<i64>(*slot, n);
            for (place, &i) in places.iter_mut().zip(index.iter()) {
                let inside = (0..self.shape[axis]).contains(&i);
                *place = place.filter(|_| inside).map(|p| p + (i * self.strides[axis]) as usize);
            }
        }
        places
    }

    fn combine(
        &self,
        scratch: &mut Scratch,
        slot: u16,
        kind: Kind,
        i: usize,
        target: Region,
        at: usize,
    ) {
        let update = match kind {
            Kind::F32 => Value::Float(f64::from(scratch.slots.slice::<f32>(slot, i + 1)[i])),
            Kind::F64 => Value::Float(scratch.slots.slice::<f64>(slot, i + 1)[i]),
            Kind::I64 if self.dtype == DType::U64 => {
                Value::Int(i128::from(scratch.slots.slice::<i64>(slot, i + 1)[i] as u64))
            }
            Kind::I64 => Value::Int(i128::from(scratch.slots.slice::<i64>(slot, i + 1)[i])),
            Kind::Bool => Value::Int(i128::from(scratch.slots.slice::<u8>(slot, i + 1)[i])),
        };
        let op = match self.op {
            ScatterOp::Replace => None,
            ScatterOp::Add => Some(ScalarOp::Add),
            ScatterOp::Mul => Some(ScalarOp::Mul),
            ScatterOp::Min => Some(ScalarOp::Min),
            ScatterOp::Max => Some(ScalarOp::Max),
        };
        region::update(target, self.dtype, at, |old| match op {
            None => update,
            Some(op) => meet(op, old, update),
        });
    }
}

/// Two values combined, before rounding to the element type.
fn meet(op: ScalarOp, a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Float(x), Value::Float(y)) => Value::Float(match op {
            ScalarOp::Add => x + y,
            ScalarOp::Mul => x * y,
            ScalarOp::Min => {
                if x.is_nan() || x < y {
                    x
                } else {
                    y
                }
            }
            _ => {
                if x.is_nan() || x > y {
                    x
                } else {
                    y
                }
            }
        }),
        _ => {
            let (x, y) = (a.as_int(), b.as_int());
            Value::Int(match op {
                ScalarOp::Add => x + y,
                ScalarOp::Mul => x.wrapping_mul(y),
                ScalarOp::Min => x.min(y),
                _ => x.max(y),
            })
        }
    }
}
