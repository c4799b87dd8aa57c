//! Moving the bytes of bulk and tensor copies: boxes, pixels of im2col, swizzles, fill outside the tensor.

use super::bulk::{Cargo, Flight};
use super::float::{BF16, F16, Round};
use super::state::Worker;
use super::warp::Warp;
use crate::check::FindingKind;
use crate::decode::inst::AtomicKind;
use crate::memory::{TensorElement, TensorMap};

/// One row of a box: its first element's coordinates, row by row.
struct Row {
    at: [i64; 5],
    number: u64,
}

/// Moves all bytes of a copy.
pub(super) fn perform(worker: &mut Worker<'_>, flight: &Flight) {
    match &flight.cargo {
        Cargo::FromGlobal { address, bytes } => {
            let mut buffer = vec![0; *bytes as usize];
            read_global(worker, flight, *address, &mut buffer);
            for landing in &flight.landings {
                let start = landing.start as usize;
                worker.blocks[landing.block].shared[start..start + buffer.len()]
                    .copy_from_slice(&buffer);
            }
        }
        Cargo::FromShared { block, start, bytes } => {
            let from = *start as usize;
            let buffer = worker.blocks[*block].shared[from..from + *bytes as usize].to_vec();
            for landing in &flight.landings {
                let start = landing.start as usize;
                worker.blocks[landing.block].shared[start..start + buffer.len()]
                    .copy_from_slice(&buffer);
            }
        }
        Cargo::ToGlobal { start, address, bytes } => {
            let from = *start as usize;
            let buffer = worker.blocks[flight.block].shared[from..from + *bytes as usize].to_vec();
            write_global(worker, flight, *address, &buffer, None);
        }
        Cargo::FromTensor { map, at, offsets } => load_tensor(worker, flight, map, *at, offsets),
        Cargo::ToTensor { map, start, at, reduction } => {
            store_tensor(worker, flight, map, (*start, *at), *reduction);
        }
    }
}

fn issuer(flight: &Flight) -> Warp {
    Warp::at(flight.block, flight.index, flight.agent)
}

fn read_global(worker: &mut Worker<'_>, flight: &Flight, address: u64, into: &mut [u8]) {
    let bytes = into.len() as u64;
    let memory = worker.machine.memory;
    let warp = issuer(flight);
    let Some(at) = memory.find(address, bytes) else {
        return worker.report_outside((&warp, flight.lane, flight.pc), address, bytes);
    };
    let allocation = memory.allocation(at);
    let offset = address - allocation.base;
    if worker.machine.options.checks {
        if !allocation.is_written(offset, bytes) {
            worker.report((&warp, flight.lane, flight.pc), FindingKind::UninitialisedGlobal, None, || {
                format!("{bytes} bytes of global memory at {address:#x} are copied and nothing has written them")
            });
        }
        worker.check_race(&warp, (flight.pc, flight.lane as usize), at, (offset, bytes), false);
    }
    allocation.read(offset, into);
}

fn write_global(
    worker: &mut Worker<'_>,
    flight: &Flight,
    address: u64,
    from: &[u8],
    add: Option<TensorElement>,
) {
    let bytes = from.len() as u64;
    let memory = worker.machine.memory;
    let warp = issuer(flight);
    let Some(at) = memory.find(address, bytes) else {
        return worker.report_outside((&warp, flight.lane, flight.pc), address, bytes);
    };
    let allocation = memory.allocation(at);
    let offset = address - allocation.base;
    if worker.machine.options.checks && add.is_none() {
        worker.check_race(&warp, (flight.pc, flight.lane as usize), at, (offset, bytes), true);
    }
    let size = add.map_or(1, |element| element.bytes() as usize);
    for (index, part) in from.chunks_exact(size).enumerate() {
        let mut value = [0; 8];
        value[..size].copy_from_slice(part);
        let (place, value) = (offset + (index * size) as u64, u64::from_le_bytes(value));
        match add {
            None => allocation.store(place, 1, value),
            Some(element) => {
                allocation.update(place, size as u32, |old| sum(element, old, value));
            }
        }
    }
    allocation.mark(offset, bytes);
}

/// The sum of two elements.
fn sum(element: TensorElement, a: u64, b: u64) -> u64 {
    let narrow = |format: super::float::Narrow| {
        u64::from(format.encode(
            format.decode(a as u32) + format.decode(b as u32),
            Round::Nearest,
            false,
        ))
    };
    match element {
        TensorElement::F32 => {
            u64::from((f32::from_bits(a as u32) + f32::from_bits(b as u32)).to_bits())
        }
        TensorElement::F64 => (f64::from_bits(a) + f64::from_bits(b)).to_bits(),
        TensorElement::F16 => narrow(F16),
        TensorElement::Bf16 => narrow(BF16),
        _ => a.wrapping_add(b),
    }
}

/// Rows of a tiled box.
fn tile_rows(map: &TensorMap, at: [i32; 5]) -> Vec<Row> {
    let rank = map.extents.len();
    let outer: u64 = map.tile[1..].iter().map(|t| u64::from(*t)).product();
    (0..outer)
        .map(|number| {
            let mut place = at.map(i64::from);
            let mut rest = number;
            for (axis, at) in place.iter_mut().enumerate().take(rank).skip(1) {
                let extent = u64::from(map.tile[axis]);
                *at += (rest % extent) as i64 * i64::from(map.steps[axis]);
                rest /= extent;
            }
            Row { at: place, number }
        })
        .collect()
}

/// Pixels of an im2col copy: a walk over the positions of a filter's window (CUDA driver API,
/// `cuTensorMapEncodeIm2col`), one row of channels each.
fn pixel_rows(map: &TensorMap, at: [i32; 5], offsets: &[u32]) -> Vec<Row> {
    let Some((lower, upper)) = &map.window else { return Vec::new() };
    let spatial = lower.len();
    let mut base = at.map(i64::from);
    let mut rows = Vec::with_capacity(map.tile[1] as usize);
    for number in 0..u64::from(map.tile[1]) {
        let mut place = base;
        for (axis, offset) in offsets.iter().enumerate() {
            place[axis + 1] += i64::from(*offset as u16);
        }
        rows.push(Row { at: place, number });
        // The next position: along the innermost spatial axis first, the batch last.
        for axis in 0..=spatial {
            if axis == spatial {
                base[spatial + 1] += 1;
                break;
            }
            base[axis + 1] += i64::from(map.steps[axis + 1]);
            let last = map.extents[axis + 1] as i64 - 1 + i64::from(upper[axis]);
            if base[axis + 1] <= last {
                break;
            }
            base[axis + 1] = i64::from(lower[axis]);
        }
    }
    rows
}

/// Elements of a row that lie in the tensor, and the address of its first element (in or out).
fn inside(map: &TensorMap, row: &Row) -> (std::ops::Range<i64>, u64) {
    let rank = map.extents.len();
    let mut address = map.base;
    for axis in 1..rank {
        if row.at[axis] < 0 || row.at[axis] as u64 >= map.extents[axis] {
            return (0..0, 0);
        }
        address += row.at[axis] as u64 * map.strides[axis - 1];
    }
    let count = i64::from(map.tile[0]);
    let step = i64::from(map.steps[0]);
    let first = (-row.at[0]).max(0).div_ceil_by(step).min(count);
    let end = (map.extents[0] as i64 - row.at[0]).max(0).div_ceil_by(step).min(count);
    (
        first..end.max(first),
        address.wrapping_add((row.at[0] as u64).wrapping_mul(map.element.bytes())),
    )
}

/// Division that rounds up, of values that are not negative.
trait DivCeil {
    fn div_ceil_by(self, step: i64) -> i64;
}

impl DivCeil for i64 {
    fn div_ceil_by(self, step: i64) -> i64 {
        (self + step - 1) / step
    }
}

fn fill(map: &TensorMap, row: &mut [u8]) {
    let nan: &[u8] = match map.element {
        TensorElement::F16 => &[0xff, 0x7f],
        TensorElement::Bf16 => &[0xff, 0x7f],
        TensorElement::F32 => &[0xff, 0xff, 0xff, 0x7f],
        TensorElement::F64 => &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        _ => &[0],
    };
    let unit: &[u8] = if map.fill_nan { nan } else { &[0] };
    row.iter_mut().zip(unit.iter().cycle()).for_each(|(byte, fill)| *byte = *fill);
}

fn load_tensor(
    worker: &mut Worker<'_>,
    flight: &Flight,
    map: &TensorMap,
    at: [i32; 5],
    offsets: &[u32],
) {
    let rows = if map.window.is_some() { pixel_rows(map, at, offsets) } else { tile_rows(map, at) };
    let element = map.element.bytes() as usize;
    let row_bytes = map.tile[0] as usize * element;
    let mut buffer = vec![0; row_bytes];
    for row in rows {
        fill(map, &mut buffer);
        let (there, address) = inside(map, &row);
        if !there.is_empty() {
            if map.steps[0] == 1 {
                let from = there.start as usize * element;
                let part = &mut buffer[from..there.end as usize * element];
                read_global(worker, flight, address.wrapping_add(from as u64), part);
            } else {
                for index in there {
                    let from = index as usize * element;
                    let place = address
                        .wrapping_add((index as u64) * u64::from(map.steps[0]) * element as u64);
                    read_global(worker, flight, place, &mut buffer[from..from + element]);
                }
            }
        }
        for landing in &flight.landings {
            let shared = &mut worker.blocks[landing.block].shared;
            let start = landing.start + (row.number as usize * row_bytes) as u32;
            for (chunk, bytes) in buffer.chunks(16).enumerate() {
                let to = map.swizzle.apply(start + 16 * chunk as u32) as usize;
                shared[to..to + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

fn store_tensor(
    worker: &mut Worker<'_>,
    flight: &Flight,
    map: &TensorMap,
    (start, at): (u32, [i32; 5]),
    reduction: Option<AtomicKind>,
) {
    let element = map.element.bytes() as usize;
    let row_bytes = map.tile[0] as usize * element;
    let mut buffer = vec![0; row_bytes];
    for row in tile_rows(map, at) {
        let from = start + (row.number as usize * row_bytes) as u32;
        let shared = &worker.blocks[flight.block].shared;
        for (chunk, bytes) in buffer.chunks_mut(16).enumerate() {
            let place = map.swizzle.apply(from + 16 * chunk as u32) as usize;
            bytes.copy_from_slice(&shared[place..place + bytes.len()]);
        }
        let (there, address) = inside(map, &row);
        if !there.is_empty() {
            let (first, last) = (there.start as usize * element, there.end as usize * element);
            let add = reduction.map(|_| map.element);
            let part = buffer[first..last].to_vec();
            write_global(worker, flight, address.wrapping_add(first as u64), &part, add);
        }
    }
}
