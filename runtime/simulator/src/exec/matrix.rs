//! The matrix units: fragments of registers to rows, products of rows, and back (PTX ISA, section 9.7.14.5).
//!
//! Register q of an operand holds, in lane l, elements of row l/4 (+8 for odd q of A), at
//! k = (l mod 4)·e + 4e·(q/2 for A, q for B), where e elements share a register. Sums are formed in the order
//! of k in the accumulator's precision; hardware aligns and truncates in groups, which no contract states.

use std::sync::LazyLock;

use super::float::{self, E4M3, E5M2, Narrow, f16_to_f32, f32_to_f16};
use super::lanes::{File, LANES};
use crate::decode::inst::{Mma, Wgmma};
use crate::ptx::ast::Type;

/// Largest depth of one instruction.
pub(crate) const DEPTH: usize = 32;
/// Rows of A, padded to the largest depth.
pub(crate) type Left<T> = [[T; DEPTH]; 16];
/// Eight columns of B, by k.
pub(crate) type Right<T> = [[T; 8]; DEPTH];
/// Sixteen rows of eight results.
pub(crate) type Tile<T> = [[T; 8]; 16];
/// The bytes of one row of an operand of `wgmma`.
pub(crate) type RawRow = [u8; 32];

static E4M3_VALUES: LazyLock<[f32; 256]> = LazyLock::new(|| values(E4M3));
static E5M2_VALUES: LazyLock<[f32; 256]> = LazyLock::new(|| values(E5M2));

fn values(format: Narrow) -> [f32; 256] {
    std::array::from_fn(|bits| format.decode(bits as u32) as f32)
}

/// d += a·b over `K` steps.
#[inline(always)]
fn accumulate<T: Copy, const K: usize>(a: &Left<T>, b: &Right<T>, d: &mut Tile<T>, f: impl Fn(T, T, T) -> T) {
    for half in 0..2 {
        let rows = half * 8;
        let mut sums: [[T; 8]; 8] = std::array::from_fn(|r| d[rows + r]);
        for k in 0..K {
            let right = b[k];
            for (r, sum) in sums.iter_mut().enumerate() {
                let left = a[rows + r][k];
                for (s, x) in sum.iter_mut().zip(right) {
                    *s = f(left, x, *s);
                }
            }
        }
        d[rows..rows + 8].copy_from_slice(&sums);
    }
}

#[inline(always)]
fn accumulate_depth<T: Copy>(a: &Left<T>, b: &Right<T>, d: &mut Tile<T>, k: usize, f: impl Fn(T, T, T) -> T) {
    match k {
        4 => accumulate::<T, 4>(a, b, d, f),
        8 => accumulate::<T, 8>(a, b, d, f),
        16 => accumulate::<T, 16>(a, b, d, f),
        _ => accumulate::<T, 32>(a, b, d, f),
    }
}

/// Elements of a register, as floats.
#[inline(always)]
fn float_parts(ty: Type, word: u32, part: usize) -> f32 {
    match ty {
        Type::F16 => f16_to_f32(word >> (16 * part) & 0xffff),
        Type::Bf16 => f32::from_bits(word >> (16 * part) << 16),
        Type::E4m3 => E4M3_VALUES[(word >> (8 * part) & 0xff) as usize],
        Type::E5m2 => E5M2_VALUES[(word >> (8 * part) & 0xff) as usize],
        // The units read 19 bits of a TF32.
        _ => f32::from_bits(word & !0x1fff),
    }
}

#[inline(always)]
fn integer_parts(ty: Type, word: u32, part: usize) -> i32 {
    let byte = (word >> (8 * part)) as u8;
    if ty == Type::S8 { i32::from(byte as i8) } else { i32::from(byte) }
}

/// Elements that share a register.
fn per_word(ty: Type) -> usize {
    match ty {
        Type::F16 | Type::Bf16 => 2,
        Type::Tf32 => 1,
        _ => 4,
    }
}

/// Spreads the registers of A over rows.
#[inline(always)]
fn left<T: Copy, const E: usize>(file: &File, slots: &[u32], a: &mut Left<T>, part: impl Fn(u32, usize) -> T) {
    for (q, slot) in slots.iter().enumerate() {
        let words = file.word(*slot);
        let (row, k) = ((q & 1) * 8, (q >> 1) * 4 * E);
        for r in 0..8 {
            let to = &mut a[row + r][k..k + 4 * E];
            for c in 0..4 {
                for e in 0..E {
                    to[c * E + e] = part(words[r * 4 + c], e);
                }
            }
        }
    }
}

/// Spreads the registers of B over steps of k.
#[inline(always)]
fn right<T: Copy, const E: usize>(file: &File, slots: &[u32], b: &mut Right<T>, part: impl Fn(u32, usize) -> T) {
    for (q, slot) in slots.iter().enumerate() {
        let words = file.word(*slot);
        for c in 0..4 {
            for e in 0..E {
                let to = &mut b[q * 4 * E + c * E + e];
                for (n, x) in to.iter_mut().enumerate() {
                    *x = part(words[n * 4 + c], e);
                }
            }
        }
    }
}

#[inline(always)]
fn load_tile<T: Copy + Default>(pairs: [(&[T; LANES], &[T; LANES]); 2]) -> Tile<T> {
    let mut d = [[T::default(); 8]; 16];
    for (half, (even, odd)) in pairs.into_iter().enumerate() {
        for r in 0..8 {
            for c in 0..4 {
                d[half * 8 + r][2 * c] = even[r * 4 + c];
                d[half * 8 + r][2 * c + 1] = odd[r * 4 + c];
            }
        }
    }
    d
}

/// The registers (even, odd columns) of one half of a tile.
#[inline(always)]
fn store_half<T: Copy>(d: &Tile<T>, half: usize) -> ([T; LANES], [T; LANES]) {
    let at = |lane: usize, odd: usize| d[half * 8 + lane / 4][lane % 4 * 2 + odd];
    (std::array::from_fn(|lane| at(lane, 0)), std::array::from_fn(|lane| at(lane, 1)))
}

/// Accumulators in registers: four of 32 bits, or two of pairs of halves.
#[inline(always)]
fn read_floats(file: &File, slots: &[u32], is_half: bool) -> Tile<f32> {
    if is_half {
        let pair = |slot: u32, part: usize| file.word(slot).map(|w| float_parts(Type::F16, w, part));
        let all = [0, 1].map(|h| (pair(slots[h], 0), pair(slots[h], 1)));
        return load_tile([(&all[0].0, &all[0].1), (&all[1].0, &all[1].1)]);
    }
    let word = |at: usize| file.word(slots[at]).map(f32::from_bits);
    let (a, b, c, d) = (word(0), word(1), word(2), word(3));
    load_tile([(&a, &b), (&c, &d)])
}

#[inline(always)]
fn write_floats(file: &mut File, slots: &[u32], d: &Tile<f32>, is_half: bool, mask: u32) {
    for half in 0..2 {
        let (even, odd) = store_half(d, half);
        if is_half {
            let packed = std::array::from_fn(|l| f32_to_f16(even[l]) | f32_to_f16(odd[l]) << 16);
            file.set_word(slots[half], &packed, mask);
        } else {
            file.set_word(slots[2 * half], &even.map(|x| float::canonical(x).to_bits()), mask);
            file.set_word(slots[2 * half + 1], &odd.map(|x| float::canonical(x).to_bits()), mask);
        }
    }
}

/// `mma.sync`: slots of d, a, b, c follow each other.
#[inline(always)]
pub(crate) fn mma(file: &mut File, shape: Mma, slots: &[u32], mask: u32) {
    match shape.d {
        Type::F64 => mma_double(file, shape, slots, mask),
        Type::S32 => mma_integer(file, shape, slots, mask),
        _ => match (shape.a, shape.b) {
            (Type::F16, _) => mma_float::<2>(file, shape, slots, mask, |w, e| float_parts(Type::F16, w, e)),
            (Type::Bf16, _) => mma_float::<2>(file, shape, slots, mask, |w, e| float_parts(Type::Bf16, w, e)),
            (Type::Tf32, _) => mma_float::<1>(file, shape, slots, mask, |w, e| float_parts(Type::Tf32, w, e)),
            _ => mma_bytes(file, shape, slots, mask),
        },
    }
}

/// Slots of each operand.
#[inline(always)]
fn operands(shape: Mma, slots: &[u32]) -> (&[u32], &[u32], &[u32], &[u32]) {
    let words = usize::from(shape.k) / (4 * per_word(shape.a));
    let accumulators = if shape.d == Type::F16 { 2 } else { 4 };
    let (d, rest) = slots.split_at(accumulators);
    let (a, rest) = rest.split_at(2 * words);
    let (b, rest) = rest.split_at(words);
    (d, a, b, &rest[..accumulators])
}

#[inline(always)]
fn mma_float<const E: usize>(
    file: &mut File,
    shape: Mma,
    slots: &[u32],
    mask: u32,
    part: impl Fn(u32, usize) -> f32 + Copy,
) {
    let (d, a, b, c) = operands(shape, slots);
    let (mut rows, mut columns) = ([[0.0; DEPTH]; 16], [[0.0; 8]; DEPTH]);
    left::<f32, E>(file, a, &mut rows, part);
    right::<f32, E>(file, b, &mut columns, part);
    let is_half = shape.d == Type::F16;
    let mut tile = read_floats(file, c, is_half);
    accumulate_depth(&rows, &columns, &mut tile, shape.k.into(), f32::mul_add);
    write_floats(file, d, &tile, is_half, mask);
}

/// Products of 8-bit floats, whose operands may have two formats.
fn mma_bytes(file: &mut File, shape: Mma, slots: &[u32], mask: u32) {
    let (d, a, b, c) = operands(shape, slots);
    let (mut rows, mut columns) = ([[0.0; DEPTH]; 16], [[0.0; 8]; DEPTH]);
    left::<f32, 4>(file, a, &mut rows, |w, e| float_parts(shape.a, w, e));
    right::<f32, 4>(file, b, &mut columns, |w, e| float_parts(shape.b, w, e));
    let is_half = shape.d == Type::F16;
    let mut tile = read_floats(file, c, is_half);
    accumulate_depth(&rows, &columns, &mut tile, shape.k.into(), f32::mul_add);
    write_floats(file, d, &tile, is_half, mask);
}

#[inline(always)]
fn mma_integer(file: &mut File, shape: Mma, slots: &[u32], mask: u32) {
    let (d, a, b, c) = operands(shape, slots);
    let (mut rows, mut columns) = ([[0; DEPTH]; 16], [[0; 8]; DEPTH]);
    left::<i32, 4>(file, a, &mut rows, |w, e| integer_parts(shape.a, w, e));
    right::<i32, 4>(file, b, &mut columns, |w, e| integer_parts(shape.b, w, e));
    let word = |at: usize| file.word(c[at]).map(|w| w as i32);
    let start = [word(0), word(1), word(2), word(3)];
    let mut tile = if shape.saturates {
        [[0; 8]; 16]
    } else {
        load_tile([(&start[0], &start[1]), (&start[2], &start[3])])
    };
    accumulate_depth(&rows, &columns, &mut tile, shape.k.into(), |x, y, s: i32| s.wrapping_add(x * y));
    if shape.saturates {
        let base = load_tile([(&start[0], &start[1]), (&start[2], &start[3])]);
        for (row, add) in tile.iter_mut().zip(&base) {
            for (x, c) in row.iter_mut().zip(add) {
                *x = x.saturating_add(*c);
            }
        }
    }
    for half in 0..2 {
        let (even, odd) = store_half(&tile, half);
        file.set_word(d[2 * half], &even.map(|x| x as u32), mask);
        file.set_word(d[2 * half + 1], &odd.map(|x| x as u32), mask);
    }
}

fn mma_double(file: &mut File, shape: Mma, slots: &[u32], mask: u32) {
    let depth = usize::from(shape.k);
    let words = depth / 4;
    let (d, rest) = slots.split_at(4);
    let (a, rest) = rest.split_at(2 * words);
    let (b, c) = rest.split_at(words);
    let value = |slot: u32, lane: usize| f64::from_bits(file.double(slot)[lane]);
    let mut tile = [[0.0; 8]; 16];
    for (row, out) in tile.iter_mut().enumerate() {
        for (column, sum) in out.iter_mut().enumerate() {
            *sum = value(c[row / 8 * 2 + column % 2], row % 8 * 4 + column / 2);
            for k in 0..depth {
                let x = value(a[k / 4 * 2 + row / 8], row % 8 * 4 + k % 4);
                *sum = x.mul_add(value(b[k / 4], column * 4 + k % 4), *sum);
            }
        }
    }
    for half in 0..2 {
        let (even, odd) = store_half(&tile, half);
        file.set_double(d[2 * half], &even.map(f64::to_bits), mask);
        file.set_double(d[2 * half + 1], &odd.map(f64::to_bits), mask);
    }
}

/// One warp's part of a `wgmma`: rows of A (from shared memory, or from registers when there are slots) by
/// all columns of B onto the accumulators.
#[inline(always)]
pub(crate) fn wgmma(file: &mut File, shape: Wgmma, slots: &[u32], a: &[RawRow], b: &[RawRow], keeps: bool) {
    match shape.a {
        Type::F16 => wgmma_float::<2>(file, shape, slots, (a, b), keeps, |w, e| float_parts(Type::F16, w, e)),
        Type::Bf16 => wgmma_float::<2>(file, shape, slots, (a, b), keeps, |w, e| float_parts(Type::Bf16, w, e)),
        Type::Tf32 => wgmma_float::<1>(file, shape, slots, (a, b), keeps, |w, e| float_parts(Type::Tf32, w, e)),
        Type::E4m3 | Type::E5m2 => wgmma_bytes(file, shape, slots, (a, b), keeps),
        _ => wgmma_integer(file, shape, slots, (a, b), keeps),
    }
}

/// Registers of an accumulator and of A.
fn wgmma_slots(shape: Wgmma, slots: &[u32]) -> (&[u32], &[u32]) {
    let accumulators = usize::from(shape.n) / if shape.d == Type::F16 { 4 } else { 2 };
    slots.split_at(accumulators)
}

#[inline(always)]
fn raw_left<T: Copy, const E: usize>(raw: &[RawRow], a: &mut Left<T>, part: impl Fn(u32, usize) -> T) {
    for (row, bytes) in a.iter_mut().zip(raw) {
        for word in 0..8 {
            let bits = super::access::word_at(bytes, 4 * word);
            for e in 0..E {
                row[word * E + e] = part(bits, e);
            }
        }
    }
}

#[inline(always)]
fn raw_right<T: Copy, const E: usize>(raw: &[RawRow], b: &mut Right<T>, part: impl Fn(u32, usize) -> T) {
    for word in 0..8 {
        for e in 0..E {
            let to = &mut b[word * E + e];
            for (x, bytes) in to.iter_mut().zip(raw) {
                *x = part(super::access::word_at(bytes, 4 * word), e);
            }
        }
    }
}

#[inline(always)]
fn wgmma_float<const E: usize>(
    file: &mut File,
    shape: Wgmma,
    slots: &[u32],
    (a, b): (&[RawRow], &[RawRow]),
    keeps: bool,
    part: impl Fn(u32, usize) -> f32 + Copy,
) {
    wgmma_parts::<E>(file, shape, slots, (a, b), keeps, (part, part));
}

fn wgmma_bytes(file: &mut File, shape: Wgmma, slots: &[u32], raw: (&[RawRow], &[RawRow]), keeps: bool) {
    let parts = (|w, e| float_parts(shape.a, w, e), |w, e| float_parts(shape.b, w, e));
    wgmma_parts::<4>(file, shape, slots, raw, keeps, parts);
}

#[inline(always)]
fn wgmma_parts<const E: usize>(
    file: &mut File,
    shape: Wgmma,
    slots: &[u32],
    (a, b): (&[RawRow], &[RawRow]),
    keeps: bool,
    (part_a, part_b): (impl Fn(u32, usize) -> f32 + Copy, impl Fn(u32, usize) -> f32 + Copy),
) {
    let (d, registers) = wgmma_slots(shape, slots);
    let mut rows = [[0.0; DEPTH]; 16];
    if shape.a_in_registers {
        left::<f32, E>(file, registers, &mut rows, part_a);
    } else {
        raw_left::<f32, E>(a, &mut rows, part_a);
    }
    if shape.negate.0 != shape.negate.1 {
        rows.iter_mut().flatten().for_each(|x| *x = -*x);
    }
    let is_half = shape.d == Type::F16;
    let mut columns = [[0.0; 8]; DEPTH];
    for (d, b) in d.chunks_exact(if is_half { 2 } else { 4 }).zip(b.chunks_exact(8)) {
        raw_right::<f32, E>(b, &mut columns, part_b);
        let mut tile = if keeps { read_floats(file, d, is_half) } else { [[0.0; 8]; 16] };
        accumulate_depth(&rows, &columns, &mut tile, 8 * E, f32::mul_add);
        write_floats(file, d, &tile, is_half, u32::MAX);
    }
}

fn wgmma_integer(file: &mut File, shape: Wgmma, slots: &[u32], (a, b): (&[RawRow], &[RawRow]), keeps: bool) {
    let (d, registers) = wgmma_slots(shape, slots);
    let mut rows = [[0; DEPTH]; 16];
    if shape.a_in_registers {
        left::<i32, 4>(file, registers, &mut rows, |w, e| integer_parts(shape.a, w, e));
    } else {
        raw_left::<i32, 4>(a, &mut rows, |w, e| integer_parts(shape.a, w, e));
    }
    let mut columns = [[0; 8]; DEPTH];
    for (d, b) in d.chunks_exact(4).zip(b.chunks_exact(8)) {
        raw_right::<i32, 4>(b, &mut columns, |w, e| integer_parts(shape.b, w, e));
        let word = |at: usize| file.word(d[at]).map(|w| w as i32);
        let start = [word(0), word(1), word(2), word(3)];
        let mut tile = if keeps { load_tile([(&start[0], &start[1]), (&start[2], &start[3])]) } else { [[0; 8]; 16] };
        accumulate_depth(&rows, &columns, &mut tile, DEPTH, |x, y, s: i32| s.wrapping_add(x * y));
        for half in 0..2 {
            let (even, odd) = store_half(&tile, half);
            file.set_word(d[2 * half], &even.map(|x| x as u32), u32::MAX);
            file.set_word(d[2 * half + 1], &odd.map(|x| x as u32), u32::MAX);
        }
    }
}
