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

/// Types whose rows can be read and written. Rows stay as they lie in the file until a lane is asked for, so
/// that loops over lanes become vector code.
pub(crate) trait Lane: Copy {
    /// A row of the file.
    type Row: Copy;
    /// A row without values.
    const EMPTY: Self::Row;
    fn row(file: &File, slot: u32) -> Self::Row;
    fn at(row: &Self::Row, lane: usize) -> Self;
    fn put(self, row: &mut Self::Row, lane: usize);
    fn store(file: &mut File, slot: u32, row: &Self::Row, mask: u32);
}

macro_rules! lane {
    ($ty:ty, $row:ty, $empty:expr, $read:ident, $write:ident, $from:expr, $to:expr) => {
        impl Lane for $ty {
            type Row = $row;
            const EMPTY: $row = $empty;

            #[inline(always)]
            fn row(file: &File, slot: u32) -> $row {
                *file.$read(slot)
            }

            #[inline(always)]
            fn at(row: &$row, lane: usize) -> $ty {
                ($from)(row[lane])
            }

            #[inline(always)]
            fn put(self, row: &mut $row, lane: usize) {
                row[lane] = ($to)(self);
            }

            #[inline(always)]
            fn store(file: &mut File, slot: u32, row: &$row, mask: u32) {
                file.$write(slot, row, mask);
            }
        }
    };
    (word $ty:ty, $from:expr, $to:expr) => {
        lane!($ty, Words, [0; LANES], word, set_word, $from, $to);
    };
    (double $ty:ty, $from:expr, $to:expr) => {
        lane!($ty, Doubles, [0; LANES], double, set_double, $from, $to);
    };
}

lane!(word u32, |x: u32| x, |x: u32| x);
lane!(word i32, |x: u32| x as i32, |x: i32| x as u32);
lane!(word u16, |x: u32| x as u16, u32::from);
lane!(word i16, |x: u32| x as i16, |x: i16| u32::from(x as u16));
lane!(word u8, |x: u32| x as u8, u32::from);
lane!(word i8, |x: u32| x as i8, |x: i8| u32::from(x as u8));
lane!(word f32, f32::from_bits, f32::to_bits);
lane!(double u64, |x: u64| x, |x: u64| x);
lane!(double i64, |x: u64| x as i64, |x: i64| x as u64);
lane!(double f64, f64::from_bits, f64::to_bits);

impl Lane for bool {
    type Row = u32;
    const EMPTY: u32 = 0;

    #[inline(always)]
    fn row(file: &File, slot: u32) -> u32 {
        file.predicate(slot)
    }

    #[inline(always)]
    fn at(row: &u32, lane: usize) -> bool {
        row >> lane & 1 != 0
    }

    #[inline(always)]
    fn put(self, row: &mut u32, lane: usize) {
        *row |= u32::from(self) << lane;
    }

    #[inline(always)]
    fn store(file: &mut File, slot: u32, row: &u32, mask: u32) {
        file.set_predicate(slot, *row, mask);
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
    let a = A::row(file, a);
    let mut out = D::EMPTY;
    for lane in 0..LANES {
        f(A::at(&a, lane)).put(&mut out, lane);
    }
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
    let (a, b) = (A::row(file, a), B::row(file, b));
    let mut out = D::EMPTY;
    for lane in 0..LANES {
        f(A::at(&a, lane), B::at(&b, lane)).put(&mut out, lane);
    }
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
    let (a, b, c) = (A::row(file, a), B::row(file, b), C::row(file, c));
    let mut out = D::EMPTY;
    for lane in 0..LANES {
        f(A::at(&a, lane), B::at(&b, lane), C::at(&c, lane)).put(&mut out, lane);
    }
    D::store(file, d, &out, mask);
}
