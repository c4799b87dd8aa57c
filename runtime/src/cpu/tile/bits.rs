//! Bits of one element type read as another of equal width.

use tgc_ir::DType;

use super::scalar::wrap;
use crate::cpu::kernels::Isa;
use crate::cpu::kernels::lanes::{self, FromImm};
use crate::cpu::kernels::region::kind_of;
use crate::cpu::kernels::slots::{Element, Kind, Slots};

/// A slot's element as the bits that memory holds.
trait Bits: FromImm + Element {
    fn to_bits(self, dtype: DType) -> u64;
    fn of_bits(bits: u64, dtype: DType) -> Self;
}

impl Bits for f32 {
    fn to_bits(self, dtype: DType) -> u64 {
        match dtype {
            DType::F16 => u64::from(half::f16::from_f32(self).to_bits()),
            DType::BF16 => u64::from(half::bf16::from_f32(self).to_bits()),
            DType::F32 => u64::from(f32::to_bits(self)),
            _ => {
                let mut byte = [0];
                tgc_ir::tensor::store(
                    dtype,
                    &mut byte,
                    0,
                    tgc_ir::scalar::Value::Float(self.into()),
                );
                u64::from(byte[0])
            }
        }
    }

    fn of_bits(bits: u64, dtype: DType) -> f32 {
        match dtype {
            DType::F16 => half::f16::from_bits(bits as u16).to_f32(),
            DType::BF16 => half::bf16::from_bits(bits as u16).to_f32(),
            DType::F32 => f32::from_bits(bits as u32),
            _ => tgc_ir::tensor::load(dtype, &[bits as u8], 0).as_f64() as f32,
        }
    }
}

impl Bits for f64 {
    fn to_bits(self, _: DType) -> u64 {
        f64::to_bits(self)
    }

    fn of_bits(bits: u64, _: DType) -> f64 {
        f64::from_bits(bits)
    }
}

impl Bits for i64 {
    fn to_bits(self, dtype: DType) -> u64 {
        self as u64 & (u64::MAX >> (64 - dtype.bits()))
    }

    fn of_bits(bits: u64, dtype: DType) -> i64 {
        wrap(bits as i64, dtype)
    }
}

impl Bits for u8 {
    fn to_bits(self, _: DType) -> u64 {
        u64::from(self)
    }

    fn of_bits(bits: u64, _: DType) -> u8 {
        u8::from(bits != 0)
    }
}

/// Reads the bits of `n` elements as another dtype of equal width.
pub(super) fn bitcast(
    isa: Isa,
    slots: &mut Slots,
    [from, to]: [DType; 2],
    dst: u16,
    src: u16,
    n: usize,
) {
    let ends = [from, to];
    match kind_of(from) {
        Kind::F32 => of::<f32>(isa, slots, ends, dst, src, n),
        Kind::F64 => of::<f64>(isa, slots, ends, dst, src, n),
        Kind::I64 => of::<i64>(isa, slots, ends, dst, src, n),
        Kind::Bool => of::<u8>(isa, slots, ends, dst, src, n),
    }
}

fn of<A: Bits>(isa: Isa, slots: &mut Slots, [from, to]: [DType; 2], dst: u16, src: u16, n: usize) {
    match kind_of(to) {
        Kind::F32 => map(isa, slots, dst, src, n, |x: A| f32::of_bits(x.to_bits(from), to)),
        Kind::F64 => map(isa, slots, dst, src, n, |x: A| f64::of_bits(x.to_bits(from), to)),
        Kind::I64 => map(isa, slots, dst, src, n, |x: A| i64::of_bits(x.to_bits(from), to)),
        Kind::Bool => map(isa, slots, dst, src, n, |x: A| u8::of_bits(x.to_bits(from), to)),
    }
}

fn map<A: Bits, R: Bits>(
    isa: Isa,
    slots: &mut Slots,
    dst: u16,
    src: u16,
    n: usize,
    f: impl Fn(A) -> R,
) {
    lanes::map1::<A, R>(isa, slots, dst, src, n, f);
}
