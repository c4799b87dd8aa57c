//! Tiles moved between tensor memory of any element type and slots: strided runs, gathers, scatters.

use tgc_ir::DType;
use tgc_ir::scalar::Value;

use super::region::Region;
use super::slots::{Kind, Slots};
use crate::cpu::index::Run;

/// Where the elements of a tile lie: element `(r, c)` at `rows[r] + column c of the runs`.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Offset of each row.
    pub rows: &'a [i64],
    /// Columns, in order.
    pub runs: &'a [Run],
}

impl Place<'_> {
    /// Columns.
    pub fn width(&self) -> usize {
        self.runs.iter().map(|r| r.count).sum()
    }

    /// Smallest and largest element touched; `None` for an empty tile.
    pub fn range(&self) -> Option<(i64, i64)> {
        let low = *self.rows.iter().min()?;
        let high = *self.rows.iter().max()?;
        let ends = |r: &Run| {
            let last = r.offset + (r.count as i64 - 1) * r.stride;
            (r.offset.min(last), r.offset.max(last))
        };
        let runs = self.runs.iter().filter(|r| r.count > 0).map(ends);
        let (a, b) = runs.reduce(|x, y| (x.0.min(y.0), x.1.max(y.1)))?;
        Some((low + a, high + b))
    }

    /// Panics unless every element is inside `elements`.
    fn check(&self, elements: i64) {
        if let Some((low, high)) = self.range() {
            assert!(
                low >= 0 && high < elements,
                "kernel reaches elements {low}..={high} of {elements}"
            );
        }
    }
}

/// # Safety
/// Elements of `place` are in bounds of `base`, `dst` has room for the tile.
#[inline(always)]
unsafe fn read<T: Copy, K: Copy>(
    base: *const T,
    place: Place<'_>,
    dst: *mut K,
    conv: impl Fn(T) -> K,
) {
    let width = place.width();
    if let [run] = place.runs
        && run.stride != 1
        && run.stride != 0
        && place.rows.len() >= 8
    {
        // Columns outermost: neighbours in memory are neighbours in the row direction.
        for c in 0..run.count {
            for (r, row) in place.rows.iter().enumerate() {
                // SAFETY: the caller's.
                unsafe {
                    *dst.add(r * width + c) =
                        conv(*base.offset((row + run.offset + c as i64 * run.stride) as isize));
                }
            }
        }
        return;
    }
    for (r, row) in place.rows.iter().enumerate() {
        let mut at = r * width;
        for run in place.runs {
            // SAFETY: the caller's.
            unsafe {
                let from = base.offset((row + run.offset) as isize);
                let to = dst.add(at);
                match run.stride {
                    0 if run.count > 0 => {
                        let x = conv(*from);
                        (0..run.count).for_each(|i| *to.add(i) = x);
                    }
                    1 => (0..run.count).for_each(|i| *to.add(i) = conv(*from.add(i))),
                    s => (0..run.count)
                        .for_each(|i| *to.add(i) = conv(*from.offset(i as isize * s as isize))),
                }
            }
            at += run.count;
        }
    }
}

/// # Safety
/// Elements of `place` are in bounds of `base`, `src` holds the tile.
#[inline(always)]
unsafe fn write<T: Copy, K: Copy>(
    base: *mut T,
    place: Place<'_>,
    src: *const K,
    conv: impl Fn(K) -> T,
) {
    let width = place.width();
    if let [run] = place.runs
        && run.stride != 1
        && place.rows.len() >= 8
    {
        for c in 0..run.count {
            for (r, row) in place.rows.iter().enumerate() {
                // SAFETY: the caller's.
                unsafe {
                    *base.offset((row + run.offset + c as i64 * run.stride) as isize) =
                        conv(*src.add(r * width + c));
                }
            }
        }
        return;
    }
    for (r, row) in place.rows.iter().enumerate() {
        let mut at = r * width;
        for run in place.runs {
            // SAFETY: the caller's.
            unsafe {
                let to = base.offset((row + run.offset) as isize);
                let from = src.add(at);
                match run.stride {
                    1 => (0..run.count).for_each(|i| *to.add(i) = conv(*from.add(i))),
                    s => (0..run.count)
                        .for_each(|i| *to.offset(i as isize * s as isize) = conv(*from.add(i))),
                }
            }
            at += run.count;
        }
    }
}

/// Copies a tile of single precision to where its rows lie contiguous.
///
/// # Safety
/// As [`write`], of memory apart from `src`.
unsafe fn copy_out(base: *mut f32, place: Place<'_>, mut src: *const f32) {
    for row in place.rows {
        for run in place.runs {
            // SAFETY: the caller's.
            unsafe {
                let to = base.offset((row + run.offset) as isize);
                std::ptr::copy_nonoverlapping(src, to, run.count);
                src = src.add(run.count);
            }
        }
    }
}

fn bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Calls `$go!(T, K, from, to)` for the storage type of `$dtype`; `$slow` for types without one.
macro_rules! by_dtype {
    ($dtype:expr, $go:ident, $slow:expr) => {
        match $dtype {
            DType::F32 => $go!(f32, f32, |x: f32| x, |x: f32| x),
            DType::F16 => {
                $go!(u16, f32, |x| half::f16::from_bits(x).to_f32(), |x: f32| half::f16::from_f32(
                    x
                )
                .to_bits())
            }
            DType::BF16 => $go!(u16, f32, bf16, |x: f32| half::bf16::from_f32(x).to_bits()),
            DType::F64 => $go!(f64, f64, |x: f64| x, |x: f64| x),
            DType::Bool => $go!(u8, u8, |x: u8| u8::from(x != 0), |x: u8| x),
            DType::I8 => $go!(i8, i64, |x: i8| i64::from(x), |x: i64| x as i8),
            DType::U8 => $go!(u8, i64, |x: u8| i64::from(x), |x: i64| x as u8),
            DType::I16 => $go!(i16, i64, |x: i16| i64::from(x), |x: i64| x as i16),
            DType::U16 => $go!(u16, i64, |x: u16| i64::from(x), |x: i64| x as u16),
            DType::I32 => $go!(i32, i64, |x: i32| i64::from(x), |x: i64| x as i32),
            DType::U32 => $go!(u32, i64, |x: u32| i64::from(x), |x: i64| x as u32),
            DType::I64 => $go!(i64, i64, |x: i64| x, |x: i64| x),
            DType::U64 => $go!(u64, i64, |x: u64| x as i64, |x: i64| x as u64),
            DType::I4 | DType::U4 | DType::F8E4M3 | DType::F8E5M2 => $slow,
        }
    };
}

/// Loads a tile of single precision without copying it where it lies dense and is a whole number of vectors long;
/// false when it has to be copied.
///
/// # Safety
/// Until the program's run ends nobody writes the tile's memory.
#[must_use]
pub unsafe fn borrow(
    slots: &mut Slots,
    slot: u16,
    region: Region,
    dtype: DType,
    place: Place<'_>,
) -> bool {
    let ([row], [run]) = (place.rows, place.runs) else { return false };
    if dtype != DType::F32 || run.stride != 1 || run.count == 0 || !run.count.is_multiple_of(16) {
        return false;
    }
    place.check(region.elements(dtype));
    // SAFETY: in bounds by `check`, a whole number of vectors by the test above; the caller vouches for the rest.
    unsafe { slots.stand_for(slot, region.start().wrapping_add(4 * (row + run.offset) as usize)) };
    true
}

/// Loads a tile into `slot` from its element `at` on, converting to the kind of the type.
///
/// # Panics
/// When an element lies outside the region: a malformed program.
pub fn load(
    slots: &mut Slots,
    slot: u16,
    at: usize,
    region: Region,
    dtype: DType,
    place: Place<'_>,
) {
    let n = at + place.rows.len() * place.width();
    place.check(region.elements(dtype));
    macro_rules! go {
        ($t:ty, $k:ty, $from:expr, $to:expr) => {{
            let dst = slots.checked::<$k>(slot, n);
            // SAFETY: in bounds by `check` and `checked`; the region is valid by construction.
            unsafe { read::<$t, $k>(region.start().cast(), place, dst.add(at), $from) }
        }};
    }
    by_dtype!(dtype, go, load_slow(slots, slot, at, region, dtype, place));
}

fn load_slow(
    slots: &mut Slots,
    slot: u16,
    mut at: usize,
    region: Region,
    dtype: DType,
    place: Place<'_>,
) {
    let bytes = region.as_bytes();
    for row in place.rows {
        for run in place.runs {
            for i in 0..run.count as i64 {
                put(
                    slots,
                    slot,
                    at,
                    tgc_ir::tensor::load(
                        dtype,
                        bytes,
                        (row + run.offset + i * run.stride) as usize,
                    ),
                );
                at += 1;
            }
        }
    }
}

fn put(slots: &mut Slots, slot: u16, at: usize, value: Value) {
    match value {
        Value::Float(x) => slots.slice::<f32>(slot, at + 1)[at] = x as f32,
        Value::Int(x) => slots.slice::<i64>(slot, at + 1)[at] = x as i64,
    }
}

/// Stores a tile from `slot`, from its element `at` on, rounding to the type.
///
/// # Panics
/// When an element lies outside the region: a malformed program.
pub fn store(
    slots: &mut Slots,
    slot: u16,
    at: usize,
    region: Region,
    dtype: DType,
    place: Place<'_>,
) {
    let n = at + place.rows.len() * place.width();
    place.check(region.elements(dtype));
    if dtype == DType::F32 && place.runs.iter().all(|r| r.stride == 1) {
        let src = slots.source::<f32>(slot, n);
        // SAFETY: in bounds by `check` and `source`; a program never stores what a slot stands for.
        unsafe { copy_out(region.start().cast(), place, src.add(at)) };
        return;
    }
    macro_rules! go {
        ($t:ty, $k:ty, $from:expr, $to:expr) => {{
            let src = slots.source::<$k>(slot, n);
            // SAFETY: in bounds by `check` and `source`; the region is valid by construction.
            unsafe { write::<$t, $k>(region.start().cast(), place, src.add(at), $to) }
        }};
    }
    by_dtype!(dtype, go, store_slow(slots, slot, at, region, dtype, place));
}

fn store_slow(
    slots: &mut Slots,
    slot: u16,
    mut at: usize,
    region: Region,
    dtype: DType,
    place: Place<'_>,
) {
    for row in place.rows {
        for run in place.runs {
            for i in 0..run.count as i64 {
                let value = if dtype.is_float() {
                    Value::Float(f64::from(slots.view::<f32>(slot, at + 1)[at]))
                } else {
                    Value::Int(i128::from(slots.slice::<i64>(slot, at + 1)[at]))
                };
                // SAFETY: in bounds by the check in `store`; two nibbles of one byte belong to one worker because
                // a plan never splits a packed row.
                let bytes =
                    unsafe { std::slice::from_raw_parts_mut(region.start(), region.bytes()) };
                tgc_ir::tensor::store(
                    dtype,
                    bytes,
                    (row + run.offset + i * run.stride) as usize,
                    value,
                );
                at += 1;
            }
        }
    }
}

/// Loads element `index[i]` of the region into `slot[i]` for `i < n`; zero where the index is outside or where
/// `mask` (a bool slot) is false.
pub fn gather(
    slots: &mut Slots,
    slot: u16,
    region: Region,
    dtype: DType,
    index: u16,
    mask: Option<u16>,
    n: usize,
) {
    let elements = region.elements(dtype);
    let index = slots.source::<i64>(index, n);
    let mask = mask.map(|m| slots.source::<u8>(m, n));
    // SAFETY: both slots hold `n` elements.
    let wanted = |i: usize| unsafe {
        let at = *index.add(i);
        let on = mask.is_none_or(|m| *m.add(i) != 0);
        (on && at >= 0 && at < elements).then_some(at as usize)
    };
    macro_rules! go {
        ($t:ty, $k:ty, $from:expr, $to:expr) => {{
            let dst = slots.checked::<$k>(slot, n);
            let (base, from) = (region.start().cast::<$t>(), $from);
            for i in 0..n {
                // SAFETY: the index is checked by `wanted`; `dst` has room for `n`.
                unsafe { *dst.add(i) = wanted(i).map_or(<$k>::default(), |at| from(*base.add(at))) }
            }
        }};
    }
    by_dtype!(dtype, go, {
        for i in 0..n {
            let value = match wanted(i) {
                Some(at) => tgc_ir::tensor::load(dtype, region.as_bytes(), at),
                None => Value::zero(dtype),
            };
            put(slots, slot, i, value);
        }
    });
}

/// Stores `slot[i]` to element `index[i]` for `i < n`; indices outside are skipped.
pub fn scatter(slots: &mut Slots, slot: u16, region: Region, dtype: DType, index: u16, n: usize) {
    let elements = region.elements(dtype);
    for i in 0..n {
        let at = slots.slice::<i64>(index, n)[i];
        if at >= 0 && at < elements {
            store_one(slots, slot, i, region, dtype, at);
        }
    }
}

fn store_one(slots: &mut Slots, slot: u16, i: usize, region: Region, dtype: DType, at: i64) {
    macro_rules! go {
        ($t:ty, $k:ty, $from:expr, $to:expr) => {{
            let to = $to;
            let x = slots.view::<$k>(slot, i + 1)[i];
            // SAFETY: `at` is inside the region, checked by the caller `scatter`.
            unsafe { *region.start().cast::<$t>().add(at as usize) = to(x) }
        }};
    }
    by_dtype!(dtype, go, {
        let value = if dtype.is_float() {
            Value::Float(f64::from(slots.view::<f32>(slot, i + 1)[i]))
        } else {
            Value::Int(i128::from(slots.slice::<i64>(slot, i + 1)[i]))
        };
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts_mut(region.start(), region.bytes()) };
        tgc_ir::tensor::store(dtype, bytes, at as usize, value);
    });
}

/// The default of a kind, everywhere.
pub fn clear(slots: &mut Slots, slot: u16, kind: Kind, n: usize) {
    match kind {
        Kind::F32 => slots.slice::<f32>(slot, n).fill(0.0),
        Kind::F64 => slots.slice::<f64>(slot, n).fill(0.0),
        Kind::I64 => slots.slice::<i64>(slot, n).fill(0),
        Kind::Bool => slots.slice::<u8>(slot, n).fill(0),
    }
}
