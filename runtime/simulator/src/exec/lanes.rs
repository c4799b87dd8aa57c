//! A warp's registers as rows of 32 lanes, and how typed functions are mapped over rows.
//!
//! Values of 8 and 16 bits lie zero-extended in words. Knows no instruction.

/// Threads of a warp.
pub(crate) const LANES: usize = 32;
/// Mask of a full warp.
pub(crate) const FULL: u32 = u32::MAX;

/// A value of each lane.
pub(crate) type Words = [u32; LANES];
/// A value of 64 bits of each lane.
pub(crate) type Doubles = [u64; LANES];

#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct WordRow(pub(crate) Words);

#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct DoubleRow(pub(crate) Doubles);

/// The registers of one warp, by class and slot. Constants and special registers have slots too.
#[derive(Clone, Default)]
pub(crate) struct File {
    pub(crate) words: Vec<WordRow>,
    pub(crate) doubles: Vec<DoubleRow>,
    pub(crate) predicates: Vec<u32>,
}

impl File {
    #[inline(always)]
    pub(crate) fn word(&self, slot: u32) -> &Words {
        &self.words[slot as usize].0
    }

    #[inline(always)]
    pub(crate) fn double(&self, slot: u32) -> &Doubles {
        &self.doubles[slot as usize].0
    }

    #[inline(always)]
    pub(crate) fn predicate(&self, slot: u32) -> u32 {
        self.predicates[slot as usize]
    }

    #[inline(always)]
    pub(crate) fn set_word(&mut self, slot: u32, value: &Words, mask: u32) {
        let row = &mut self.words[slot as usize].0;
        if mask == FULL {
            *row = *value;
        } else {
            for lane in 0..LANES {
                row[lane] = if mask >> lane & 1 != 0 { value[lane] } else { row[lane] };
            }
        }
    }

    #[inline(always)]
    pub(crate) fn set_double(&mut self, slot: u32, value: &Doubles, mask: u32) {
        let row = &mut self.doubles[slot as usize].0;
        if mask == FULL {
            *row = *value;
        } else {
            for lane in 0..LANES {
                row[lane] = if mask >> lane & 1 != 0 { value[lane] } else { row[lane] };
            }
        }
    }

    #[inline(always)]
    pub(crate) fn set_predicate(&mut self, slot: u32, value: u32, mask: u32) {
        let row = &mut self.predicates[slot as usize];
        *row = *row & !mask | value & mask;
    }
}

/// Types whose rows can be read and written.
pub(crate) trait Lane: Copy {
    fn load(file: &File, slot: u32) -> [Self; LANES];
    fn store(file: &mut File, slot: u32, value: &[Self; LANES], mask: u32);
}

macro_rules! lane {
    ($ty:ty, $read:ident, $write:ident, $from:expr, $to:expr) => {
        impl Lane for $ty {
            #[inline(always)]
            fn load(file: &File, slot: u32) -> [Self; LANES] {
                file.$read(slot).map($from)
            }

            #[inline(always)]
            fn store(file: &mut File, slot: u32, value: &[Self; LANES], mask: u32) {
                file.$write(slot, &value.map($to), mask);
            }
        }
    };
}

lane!(u32, word, set_word, |x| x, |x| x);
lane!(i32, word, set_word, |x| x as i32, |x| x as u32);
lane!(u16, word, set_word, |x| x as u16, u32::from);
lane!(i16, word, set_word, |x| x as i16, |x| u32::from(x as u16));
lane!(u8, word, set_word, |x| x as u8, u32::from);
lane!(i8, word, set_word, |x| x as i8, |x| u32::from(x as u8));
lane!(f32, word, set_word, f32::from_bits, f32::to_bits);
lane!(u64, double, set_double, |x| x, |x| x);
lane!(i64, double, set_double, |x| x as i64, |x| x as u64);
lane!(f64, double, set_double, f64::from_bits, f64::to_bits);

impl Lane for bool {
    #[inline(always)]
    fn load(file: &File, slot: u32) -> [bool; LANES] {
        let mask = file.predicate(slot);
        std::array::from_fn(|lane| mask >> lane & 1 != 0)
    }

    #[inline(always)]
    fn store(file: &mut File, slot: u32, value: &[bool; LANES], mask: u32) {
        let mut bits = 0;
        for (lane, set) in value.iter().enumerate() {
            bits |= u32::from(*set) << lane;
        }
        file.set_predicate(slot, bits, mask);
    }
}

/// `d = f(a)` in the lanes of a mask.
#[inline(always)]
pub(crate) fn map1<A: Lane, D: Lane>(
    file: &mut File,
    (d, a): (u32, u32),
    mask: u32,
    f: impl Fn(A) -> D,
) {
    let out = A::load(file, a).map(f);
    D::store(file, d, &out, mask);
}

/// `d = f(a, b)` in the lanes of a mask.
#[inline(always)]
pub(crate) fn map2<A: Lane, B: Lane, D: Lane>(
    file: &mut File,
    (d, a, b): (u32, u32, u32),
    mask: u32,
    f: impl Fn(A, B) -> D,
) {
    let (a, b) = (A::load(file, a), B::load(file, b));
    let out: [D; LANES] = std::array::from_fn(|lane| f(a[lane], b[lane]));
    D::store(file, d, &out, mask);
}

/// `d = f(a, b, c)` in the lanes of a mask.
#[inline(always)]
pub(crate) fn map3<A: Lane, B: Lane, C: Lane, D: Lane>(
    file: &mut File,
    (d, a, b, c): (u32, u32, u32, u32),
    mask: u32,
    f: impl Fn(A, B, C) -> D,
) {
    let (a, b, c) = (A::load(file, a), B::load(file, b), C::load(file, c));
    let out: [D; LANES] = std::array::from_fn(|lane| f(a[lane], b[lane], c[lane]));
    D::store(file, d, &out, mask);
}
