//! Fields, bytes and truth tables of words (PTX ISA, sections 9.7.1 and 9.7.7).

#[inline(never)]
pub(super) fn bit_field(value: u64, start: u32, length: u32, bits: u32, signed: bool) -> u64 {
    let (start, length) = (start & 0xff, length & 0xff);
    let shifted = if start >= bits { 0 } else { value >> start };
    let kept = if length >= 64 { shifted } else { shifted & ((1u64 << length) - 1) };
    // The sign is the top bit of the field, or of the value when the field reaches beyond it.
    let top = (start + length).saturating_sub(1).min(bits - 1);
    if signed && length != 0 && value >> top & 1 == 1 {
        let width = length.min(bits.saturating_sub(start));
        return kept | if width >= 64 { 0 } else { u64::MAX << width };
    }
    kept
}

#[inline(never)]
pub(super) fn insert_bits(a: u64, b: u64, start: u32, length: u32, bits: u32) -> u64 {
    let (start, length) = (start & 0xff, length & 0xff);
    if start >= bits || length == 0 {
        return b;
    }
    let width = length.min(bits - start);
    let field = (if width >= 64 { u64::MAX } else { (1u64 << width) - 1 }) << start;
    b & !field | a << start & field
}

#[inline(never)]
pub(super) fn permute_bytes(a: u32, b: u32, selector: u32, mode: u32) -> u32 {
    let bytes = u64::from(a) | u64::from(b) << 32;
    let byte = |at: u32| (bytes >> (8 * (at & 7))) as u32 & 0xff;
    let low = selector & 3;
    let nibble = |at: u32| selector >> (4 * at) & 0xf;
    (0..4).fold(0, |out, at| {
        let picked = match mode {
            1 => byte(low + at),
            2 => byte(low.wrapping_sub(at)),
            3 => byte(low),
            4 => byte(low.max(at)),
            5 => byte(low.min(at)),
            6 => byte(low & 2 | at & 1),
            _ if nibble(at) & 8 != 0 => {
                if byte(nibble(at)) & 0x80 != 0 {
                    0xff
                } else {
                    0
                }
            }
            _ => byte(nibble(at)),
        };
        out | picked << (8 * at)
    })
}

/// Any function of three bits, bitwise.
#[inline(always)]
pub(super) fn logic3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let pick = |bit: u32| if table >> bit & 1 != 0 { u32::MAX } else { 0 };
    let (mut out, terms) = (
        0,
        [
            !a & !b & !c,
            !a & !b & c,
            !a & b & !c,
            !a & b & c,
            a & !b & !c,
            a & !b & c,
            a & b & !c,
            a & b & c,
        ],
    );
    for (bit, term) in terms.iter().enumerate() {
        out |= term & pick(bit as u32);
    }
    out
}

#[inline(never)]
pub(super) fn dot4(a: u32, b: u32, c: u32, signed: u32) -> u32 {
    let part = |x: u32, at: u32, signed: bool| {
        let byte = (x >> (8 * at)) as u8;
        if signed { i32::from(byte as i8) } else { i32::from(byte) }
    };
    (0..4).fold(c, |sum, at| {
        let product = part(a, at, signed & 1 != 0) * part(b, at, signed & 2 != 0);
        sum.wrapping_add(product as u32)
    })
}
