//! Heap memory aligned to a cache line, zeroed when made.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Bytes of a cache line, and of the widest vector.
pub const LINE: usize = 64;

#[repr(align(64))]
struct Line;

/// `len` bytes, aligned to [`LINE`], owned.
#[derive(Debug)]
pub struct Buffer {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is owned; access through `&` and `&mut` follows the usual rules.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Zeroed memory of `bytes` bytes.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        if bytes == 0 {
            return Self { start: NonNull::<Line>::dangling().cast(), bytes };
        }
        let layout = layout(bytes);
        // SAFETY: the layout has a non-zero size.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, bytes }
    }

    /// Zeroed memory for `len` floats.
    #[must_use]
    pub fn floats(len: usize) -> Self {
        Self::zeroed(len * size_of::<f32>())
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// First byte.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    /// First byte, for writing.
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Replaces the first bytes.
    ///
    /// # Panics
    /// When there are more than fit.
    pub fn copy_in(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.bytes);
        // SAFETY: in bounds by the assertion; the buffer is owned, so the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr(), bytes.len()) }
    }

    /// The contents as floats.
    #[must_use]
    pub fn as_f32(&self) -> &[f32] {
        // SAFETY: aligned, initialised (zeroed) and any bit pattern is a float.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / 4) }
    }

    /// The contents as floats, for writing.
    #[must_use]
    pub fn as_f32_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_f32`, and `&mut self` makes the view unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes / 4) }
    }

    /// Makes room for `bytes`, forgetting the contents when it has to grow.
    pub fn reserve(&mut self, bytes: usize) {
        if bytes > self.bytes {
            *self = Self::zeroed(bytes);
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the memory is owned and initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        // SAFETY: allocated by `zeroed` with the same layout.
        unsafe { dealloc(self.start.as_ptr(), layout(self.bytes)) }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, LINE)
        .expect("sizes are checked against memory limits before allocation")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zeroed_and_grows() {
        let mut buffer = Buffer::floats(5);
        assert_eq!(buffer.as_ptr() as usize % LINE, 0);
        assert_eq!(buffer.as_f32(), [0.0; 5]);
        buffer.as_f32_mut()[4] = 1.0;
        buffer.reserve(8);
        assert_eq!(buffer.as_f32()[4], 1.0, "no growth, no loss");
        buffer.reserve(100);
        assert_eq!(buffer.bytes(), 100);
        assert!(Buffer::zeroed(0).as_f32().is_empty());
    }
}
