//! Where the cells under a sliding window lie: one table per line of positions and one along the line, so that a
//! window costs two additions and no division. A cell outside the image stands for a run of fill values.

use std::mem::MaybeUninit;
use std::ops::Range;

/// Segments of a row that one call of a micro-kernel takes.
pub const SEGMENTS: usize = 64;

/// Offset of a cell outside: any sum with it is negative.
pub const OUTSIDE: i64 = i64::MIN / 4;

/// Starts of the cells under windows. Position `i` is place `i % width` of line `i / width`.
#[derive(Clone, Copy, Debug)]
pub struct Taps<'a> {
    /// Per line: offset of each of `line_taps` cell lines, in floats from the base.
    pub lines: &'a [i64],
    /// Filter lines.
    pub line_taps: usize,
    /// Per place: offset of each of `place_taps` cells along a line.
    pub places: &'a [i64],
    /// Cells per filter line.
    pub place_taps: usize,
    /// Places per line.
    pub width: usize,
    /// Places whose cells along the line are all inside, each `step` floats behind those of the place before.
    pub inner: (usize, usize),
    /// See `inner`.
    pub step: usize,
    /// What a cell outside holds.
    pub fill: &'a [f32],
}

/// Starts of up to [`SEGMENTS`] segments of up to eight rows.
pub struct Starts([MaybeUninit<[*const f32; 8]>; SEGMENTS]);

impl Starts {
    /// Nothing set.
    #[inline(always)]
    #[must_use]
    pub fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; SEGMENTS])
    }

    /// Sets the first segment: `start(r)` for `r < rows`, the rest null.
    #[inline(always)]
    pub(crate) fn set(&mut self, rows: usize, start: impl Fn(usize) -> *const f32) {
        let mut first = [std::ptr::null(); 8];
        for (r, to) in first.iter_mut().enumerate().take(rows) {
            *to = start(r);
        }
        self.0[0] = MaybeUninit::new(first);
    }

    /// The first `count` segments, all of which have been set.
    #[inline(always)]
    pub(crate) fn filled(&self, count: usize) -> &[[*const f32; 8]] {
        // SAFETY: `Lhs::starts`, the only caller, sets as many; eight pointers need no initial value to be read as
        // they are written whole.
        unsafe { &*(std::ptr::from_ref(&self.0[..count]) as *const [[*const f32; 8]]) }
    }
}

impl Default for Starts {
    fn default() -> Self {
        Self::new()
    }
}

impl Taps<'_> {
    /// Cells under a window.
    #[inline(always)]
    #[must_use]
    pub fn count(&self) -> usize {
        self.line_taps * self.place_taps
    }

    /// Starts of taps `taps` of positions `row..row + rows`.
    #[inline(always)]
    pub(crate) fn starts(
        &self,
        base: *const f32,
        row: usize,
        rows: usize,
        taps: Range<usize>,
        starts: &mut Starts,
    ) {
        let (line, place) = (row / self.width, row % self.width);
        if self.inner.0 <= place && place + rows <= self.inner.1 {
            self.inner_starts(base, line, place, taps, starts);
        } else {
            self.border_starts(base, line, place, rows, taps, starts);
        }
    }

    /// Of eight places of one line that are all inside.
    #[inline(always)]
    fn inner_starts(
        &self,
        base: *const f32,
        line: usize,
        place: usize,
        taps: Range<usize>,
        starts: &mut Starts,
    ) {
        let (lines, places) = (line * self.line_taps, place * self.place_taps);
        let (mut a, mut b) = (taps.start / self.place_taps, taps.start % self.place_taps);
        for to in &mut starts.0[..taps.len()] {
            let mut found = [self.fill.as_ptr(); 8];
            let at = self.lines[lines + a];
            if at >= 0 {
                let first = base.wrapping_add((at + self.places[places + b]) as usize);
                for (r, start) in found.iter_mut().enumerate() {
                    *start = first.wrapping_add(r * self.step);
                }
            }
            *to = MaybeUninit::new(found);
            b += 1;
            if b == self.place_taps {
                (a, b) = (a + 1, 0);
            }
        }
    }

    /// Of places that may be outside or on several lines.
    #[inline(always)]
    fn border_starts(
        &self,
        base: *const f32,
        mut line: usize,
        mut place: usize,
        rows: usize,
        taps: Range<usize>,
        starts: &mut Starts,
    ) {
        let mut offsets = [(0usize, 0usize); 8];
        for offset in offsets.iter_mut().take(rows) {
            *offset = (line * self.line_taps, place * self.place_taps);
            place += 1;
            if place == self.width {
                (line, place) = (line + 1, 0);
            }
        }
        let (mut a, mut b) = (taps.start / self.place_taps, taps.start % self.place_taps);
        for to in &mut starts.0[..taps.len()] {
            let mut found = [self.fill.as_ptr(); 8];
            for (start, &(line, place)) in found.iter_mut().zip(&offsets[..rows]) {
                let offset = self.lines[line + a] + self.places[place + b];
                if offset >= 0 {
                    *start = base.wrapping_add(offset as usize);
                }
            }
            *to = MaybeUninit::new(found);
            b += 1;
            if b == self.place_taps {
                (a, b) = (a + 1, 0);
            }
        }
    }
}
