//! The matrix units: fragments of registers times fragments of registers (PTX ISA, section 9.7.14.5).
//!
//! Register q of an operand holds, in lane l, elements of row l/4 (+8 for odd q of A), at
//! k = (l mod 4)·e + 4e·(q/2 for A, q for B), where e elements share a register. Operands of `wgmma` in shared
//! memory are gathered in the same arrangement. Sums are formed in the order of k in the accumulator's
//! precision; hardware aligns and truncates in groups, which no contract states.

use std::sync::LazyLock;

use super::float::{self, E4M3, E5M2, Narrow, f16_to_f32, f32_to_f16};
use super::lanes::{File, LANES, Words};
use crate::decode::inst::{Mma, Wgmma};
use crate::ptx::ast::Type;

/// Sixteen rows of eight results; columns 0 2 4 6 1 3 5 7, as registers hold them.
type Tile<T> = [[T; 8]; 16];

static E4M3_VALUES: LazyLock<[f32; 256]> = LazyLock::new(|| values(E4M3));
static E5M2_VALUES: LazyLock<[f32; 256]> = LazyLock::new(|| values(E5M2));

fn values(format: Narrow) -> [f32; 256] {
    std::array::from_fn(|bits| format.decode(bits as u32) as f32)
}

/// The elements of a register, apart.
#[inline(always)]
fn parts<T: Copy + Default, const E: usize>(
    words: &Words,
    part: impl Fn(u32, usize) -> T,
) -> [[T; LANES]; E] {
    let mut out = [[T::default(); LANES]; E];
    for (e, row) in out.iter_mut().enumerate() {
        for (x, word) in row.iter_mut().zip(words) {
            *x = part(*word, e);
        }
    }
    out
}

/// Columns of B by step: position p of a row is column 2p, or 2(p-4)+1.
#[inline(always)]
fn columns<T: Copy + Default>(elements: &[T; LANES]) -> [[T; 8]; 4] {
    let mut out = [[T::default(); 8]; 4];
    for p in 0..4 {
        for (c, row) in out.iter_mut().enumerate() {
            row[p] = elements[8 * p + c];
            row[4 + p] = elements[8 * p + 4 + c];
        }
    }
    out
}

/// d += a·b for `Q` registers of B and twice as many of A, of `E` elements each.
#[inline(always)]
fn multiply<T: Copy + Default, const E: usize, const Q: usize>(
    a: &[Words],
    b: &[Words],
    d: &mut Tile<T>,
    (part_a, part_b): (impl Fn(u32, usize) -> T, impl Fn(u32, usize) -> T),
    f: impl Fn(T, T, T) -> T,
) {
    for q in 0..Q {
        let right: [[[T; 8]; 4]; E] =
            parts::<T, E>(&b[q], &part_b).map(|elements| columns(&elements));
        for half in 0..2 {
            let left = parts::<T, E>(&a[2 * q + half], &part_a);
            let rows = half * 8;
            let mut sums: [[T; 8]; 8] = [
                d[rows],
                d[rows + 1],
                d[rows + 2],
                d[rows + 3],
                d[rows + 4],
                d[rows + 5],
                d[rows + 6],
                d[rows + 7],
            ];
            for c in 0..4 {
                for e in 0..E {
                    let step = right[e][c];
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let x = left[e][r * 4 + c];
                        for (s, y) in sum.iter_mut().zip(step) {
                            *s = f(x, y, *s);
                        }
                    }
                }
            }
            d[rows..rows + 8].copy_from_slice(&sums);
        }
    }
}

/// As [`multiply`], for one or two registers of B.
#[inline(always)]
fn multiply_any<T: Copy + Default, const E: usize>(
    a: &[Words],
    b: &[Words],
    d: &mut Tile<T>,
    parts: (impl Fn(u32, usize) -> T, impl Fn(u32, usize) -> T),
    f: impl Fn(T, T, T) -> T,
) {
    if b.len() == 1 {
        multiply::<T, E, 1>(a, b, d, parts, f)
    } else {
        multiply::<T, E, 2>(a, b, d, parts, f)
    }
}

#[inline(always)]
fn f16_part(word: u32, part: usize) -> f32 {
    f16_to_f32(word >> (16 * part) & 0xffff)
}

#[inline(always)]
fn bf16_part(word: u32, part: usize) -> f32 {
    f32::from_bits(word >> (16 * part) << 16)
}

/// The units read 19 bits of a TF32.
#[inline(always)]
fn tf32_part(word: u32, _part: usize) -> f32 {
    f32::from_bits(word & !0x1fff)
}

fn byte_part(ty: Type) -> impl Fn(u32, usize) -> f32 + Copy {
    let values: &'static [f32; 256] = if ty == Type::E4m3 { &E4M3_VALUES } else { &E5M2_VALUES };
    move |word, part| values[(word >> (8 * part) & 0xff) as usize]
}

fn integer_part(ty: Type) -> impl Fn(u32, usize) -> i32 + Copy {
    let signed = ty == Type::S8;
    move |word, part| {
        let byte = (word >> (8 * part)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    }
}

/// Accumulators: registers of even and of odd columns, for both halves of the rows.
#[inline(always)]
fn load_tile<T: Copy + Default>(registers: [[T; LANES]; 4]) -> Tile<T> {
    let mut d = [[T::default(); 8]; 16];
    for half in 0..2 {
        for r in 0..8 {
            d[half * 8 + r][..4].copy_from_slice(&registers[2 * half][r * 4..r * 4 + 4]);
            d[half * 8 + r][4..].copy_from_slice(&registers[2 * half + 1][r * 4..r * 4 + 4]);
        }
    }
    d
}

#[inline(always)]
fn store_tile<T: Copy + Default>(d: &Tile<T>) -> [[T; LANES]; 4] {
    let mut out = [[T::default(); LANES]; 4];
    for half in 0..2 {
        for r in 0..8 {
            out[2 * half][r * 4..r * 4 + 4].copy_from_slice(&d[half * 8 + r][..4]);
            out[2 * half + 1][r * 4..r * 4 + 4].copy_from_slice(&d[half * 8 + r][4..]);
        }
    }
    out
}

/// Four registers of floats, or two of pairs of halves.
#[inline(always)]
fn read_floats(file: &File, slots: &[u32], is_half: bool) -> Tile<f32> {
    let mut registers = [[0.0; LANES]; 4];
    for (at, register) in registers.iter_mut().enumerate() {
        let words = file.word(slots[if is_half { at / 2 } else { at }]);
        for (x, word) in register.iter_mut().zip(words) {
            *x = if is_half { f16_part(*word, at % 2) } else { f32::from_bits(*word) };
        }
    }
    load_tile(registers)
}

#[inline(always)]
fn write_floats(file: &mut File, slots: &[u32], d: &Tile<f32>, is_half: bool, mask: u32) {
    let registers = store_tile(d);
    let mut out = [0; LANES];
    if is_half {
        for half in 0..2 {
            for (lane, word) in out.iter_mut().enumerate() {
                let (low, high) = (registers[2 * half][lane], registers[2 * half + 1][lane]);
                *word = f32_to_f16(low) | f32_to_f16(high) << 16;
            }
            file.set_word(slots[half], &out, mask);
        }
        return;
    }
    for (slot, register) in slots.iter().zip(&registers) {
        for (word, x) in out.iter_mut().zip(register) {
            *word = float::canonical(*x).to_bits();
        }
        file.set_word(*slot, &out, mask);
    }
}

#[inline(always)]
fn read_integers(file: &File, slots: &[u32]) -> Tile<i32> {
    let mut registers = [[0; LANES]; 4];
    for (register, slot) in registers.iter_mut().zip(slots) {
        for (x, word) in register.iter_mut().zip(file.word(*slot)) {
            *x = *word as i32;
        }
    }
    load_tile(registers)
}

#[inline(always)]
fn write_integers(file: &mut File, slots: &[u32], d: &Tile<i32>, mask: u32) {
    for (slot, register) in slots.iter().zip(&store_tile(d)) {
        let mut out = [0; LANES];
        for (word, x) in out.iter_mut().zip(register) {
            *word = *x as u32;
        }
        file.set_word(*slot, &out, mask);
    }
}

/// Copies of up to four rows of registers.
#[inline(always)]
fn gather(file: &File, slots: &[u32]) -> [Words; 4] {
    let mut out = [[0; LANES]; 4];
    for (row, slot) in out.iter_mut().zip(slots) {
        *row = *file.word(*slot);
    }
    out
}

/// Slots of d, a, b and c, which follow each other.
#[inline(always)]
fn operands(shape: Mma, slots: &[u32]) -> (&[u32], &[u32], &[u32], &[u32]) {
    let element = if shape.a == Type::Tf32 { 4 } else { shape.a.bytes() as usize };
    let words = usize::from(shape.k) * element / 16;
    let accumulators = if shape.d == Type::F16 { 2 } else { 4 };
    let (d, rest) = slots.split_at(accumulators);
    let (a, rest) = rest.split_at(2 * words);
    let (b, rest) = rest.split_at(words);
    (d, a, b, &rest[..accumulators])
}

/// `mma.sync`
#[inline(always)]
pub(crate) fn mma(file: &mut File, shape: Mma, slots: &[u32], mask: u32) {
    if shape.d == Type::F64 {
        return mma_double(file, shape, slots, mask);
    }
    let (d, a, b, c) = operands(shape, slots);
    let (left, right) = (gather(file, a), gather(file, b));
    let (left, right) = (&left[..a.len()], &right[..b.len()]);
    if shape.d == Type::S32 {
        return mma_integer(file, shape, (d, c), (left, right), mask);
    }
    let is_half = shape.d == Type::F16;
    let mut tile = read_floats(file, c, is_half);
    multiply_floats((shape.a, shape.b), left, right, &mut tile);
    write_floats(file, d, &tile, is_half, mask);
}

#[inline(always)]
fn multiply_floats((a, b): (Type, Type), left: &[Words], right: &[Words], tile: &mut Tile<f32>) {
    match a {
        Type::F16 => multiply_any::<f32, 2>(left, right, tile, (f16_part, f16_part), f32::mul_add),
        Type::Bf16 => {
            multiply_any::<f32, 2>(left, right, tile, (bf16_part, bf16_part), f32::mul_add)
        }
        Type::Tf32 => {
            multiply_any::<f32, 1>(left, right, tile, (tf32_part, tf32_part), f32::mul_add)
        }
        _ => multiply_any::<f32, 4>(left, right, tile, (byte_part(a), byte_part(b)), f32::mul_add),
    }
}

#[inline(always)]
fn multiply_integers((a, b): (Type, Type), left: &[Words], right: &[Words], tile: &mut Tile<i32>) {
    let parts = (integer_part(a), integer_part(b));
    multiply_any::<i32, 4>(left, right, tile, parts, |x, y, sum| sum.wrapping_add(x * y));
}

#[inline(always)]
fn mma_integer(
    file: &mut File,
    shape: Mma,
    (d, c): (&[u32], &[u32]),
    (left, right): (&[Words], &[Words]),
    mask: u32,
) {
    let base = read_integers(file, c);
    let mut tile = if shape.saturates { [[0; 8]; 16] } else { base };
    multiply_integers((shape.a, shape.b), left, right, &mut tile);
    if shape.saturates {
        for (row, add) in tile.iter_mut().zip(&base) {
            for (x, c) in row.iter_mut().zip(add) {
                *x = x.saturating_add(*c);
            }
        }
    }
    write_integers(file, d, &tile, mask);
}

#[inline(never)]
fn mma_double(file: &mut File, shape: Mma, slots: &[u32], mask: u32) {
    let depth = usize::from(shape.k);
    let words = depth / 4;
    let (d, rest) = slots.split_at(4);
    let (a, rest) = rest.split_at(2 * words);
    let (b, c) = rest.split_at(words);
    let value = |slot: u32, lane: usize| f64::from_bits(file.double(slot)[lane]);
    // Columns in their order here.
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
    for (at, slot) in d.iter().enumerate() {
        let value = |lane: usize| tile[at / 2 * 8 + lane / 4][lane % 4 * 2 + at % 2];
        let row = std::array::from_fn(|lane| f64::to_bits(value(lane)));
        file.set_double(*slot, &row, mask);
    }
}

/// One warp's part of a `wgmma`: rows of A (gathered from shared memory, or in registers) by all columns of B
/// (two rows of words for each eight columns) onto the accumulators.
#[inline(always)]
pub(crate) fn wgmma(
    file: &mut File,
    shape: Wgmma,
    slots: &[u32],
    a: &[Words; 4],
    b: &[[Words; 2]],
    keeps: bool,
) {
    let is_half = shape.d == Type::F16;
    let accumulators = usize::from(shape.n) / if is_half { 4 } else { 2 };
    let (d, registers) = slots.split_at(accumulators);
    let mut left = if shape.a_in_registers { gather(file, registers) } else { *a };
    if shape.negate.0 != shape.negate.1 {
        // Only halves can be negated.
        left.iter_mut().flatten().for_each(|word| *word ^= 0x8000_8000);
    }
    for (d, right) in d.chunks_exact(if is_half { 2 } else { 4 }).zip(b) {
        if shape.d == Type::S32 {
            let mut tile = if keeps { read_integers(file, d) } else { [[0; 8]; 16] };
            multiply_integers((shape.a, shape.b), &left, right, &mut tile);
            write_integers(file, d, &tile, u32::MAX);
        } else {
            let mut tile = if keeps { read_floats(file, d, is_half) } else { [[0.0; 8]; 16] };
            multiply_floats((shape.a, shape.b), &left, right, &mut tile);
            write_floats(file, d, &tile, is_half, u32::MAX);
        }
    }
}
