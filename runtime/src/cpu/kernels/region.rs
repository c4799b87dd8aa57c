//! Tensor memory as kernels see it, and its single elements.
//!
//! Access is checked against the size of the memory. That nobody else writes the elements meanwhile is the
//! plan's promise, stated where a [`Region`] is made.

use tgc_ir::DType;
use tgc_ir::scalar::Value;

use super::buffer::Buffer;
use super::slots::Kind;

/// Memory of one buffer.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: see `Region::new`.
unsafe impl Send for Region {}
// SAFETY: see `Region::new`.
unsafe impl Sync for Region {}

/// The kind in which elements of a type are computed.
#[must_use]
pub fn kind_of(dtype: DType) -> Kind {
    match dtype {
        DType::F64 => Kind::F64,
        DType::Bool => Kind::Bool,
        d if d.is_float() => Kind::F32,
        _ => Kind::I64,
    }
}

impl Region {
    /// # Safety
    /// `start` is valid for `bytes` bytes as long as the region is used, for writes too if it is stored to, and
    /// no two concurrent kernels use it unless both only read or touch disjoint elements.
    pub unsafe fn new(start: *mut u8, bytes: usize) -> Self {
        Self { start, bytes }
    }

    /// A region of nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { start: std::ptr::NonNull::dangling().as_ptr(), bytes: 0 }
    }

    /// Size.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// First byte.
    #[must_use]
    pub fn start(self) -> *mut u8 {
        self.start
    }

    /// True when the two share a byte.
    #[must_use]
    pub fn overlaps(self, other: Region) -> bool {
        let (a, b) = (self.start as usize, other.start as usize);
        a < b + other.bytes && b < a + self.bytes
    }

    /// Elements of a type that fit.
    #[must_use]
    pub fn elements(self, dtype: DType) -> i64 {
        (self.bytes as i64 * 8) / i64::from(dtype.bits())
    }

    pub(super) fn as_bytes<'a>(self) -> &'a [u8] {
        // SAFETY: valid for reads by `new`; used for types without a fast path, which are only ever weights or
        // read back inside one kernel.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }
}

/// Grows two buffers to hold these numbers of floats and gives their memory.
pub fn reserve(buffers: &mut [Buffer; 2], floats: [usize; 2]) -> [Region; 2] {
    let [a, b] = buffers;
    a.reserve(floats[0] * 4);
    b.reserve(floats[1] * 4);
    [of_buffer(a), of_buffer(b)]
}

/// The memory of a buffer, as long as it is neither dropped nor grown.
pub fn of_buffer(buffer: &mut Buffer) -> Region {
    Region { start: buffer.as_mut_ptr(), bytes: buffer.bytes() }
}

impl Region {
    /// Checks that float `last` is inside, before a kernel reads up to it in place.
    ///
    /// # Panics
    /// When it is not: a malformed program.
    pub fn check_floats(self, last: i64) {
        assert!(
            last < (self.bytes / 4) as i64,
            "kernel reaches element {last} of {}",
            self.bytes / 4
        );
    }

    /// Address of a float; reading it is what needs a proof.
    #[must_use]
    pub fn float_at(self, at: usize) -> *const f32 {
        self.start.cast::<f32>().cast_const().wrapping_add(at)
    }

    /// Floats `at..at + n`.
    ///
    /// # Safety
    /// Nobody writes them while the slice lives.
    pub unsafe fn floats<'a>(self, at: usize, n: usize) -> &'a [f32] {
        assert!((at + n) * 4 <= self.bytes);
        if n == 0 {
            return &[];
        }
        // SAFETY: in bounds; the caller vouches for the rest.
        unsafe { std::slice::from_raw_parts(self.start.cast::<f32>().add(at), n) }
    }

    /// Floats `at..at + n`, for writing.
    ///
    /// # Safety
    /// Nobody else uses them while the slice lives.
    pub unsafe fn floats_mut<'a>(self, at: usize, n: usize) -> &'a mut [f32] {
        assert!((at + n) * 4 <= self.bytes);
        if n == 0 {
            return &mut [];
        }
        // SAFETY: in bounds; the caller vouches for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast::<f32>().add(at), n) }
    }
}

/// Replaces element `at` by `f` of it. Nothing happens outside the region.
pub fn update(region: Region, dtype: DType, at: usize, f: impl Fn(Value) -> Value) {
    if at as i64 >= region.elements(dtype) {
        return;
    }
    // SAFETY: the region is valid for writes by construction and the kernel that updates it runs on one thread.
    let bytes = unsafe { std::slice::from_raw_parts_mut(region.start, region.bytes) };
    let old = tgc_ir::tensor::load(dtype, bytes, at);
    tgc_ir::tensor::store(dtype, bytes, at, f(old));
}

impl Region {
    /// `bytes` bytes from `offset` on, cut to the region.
    #[must_use]
    pub fn part(self, offset: usize, bytes: usize) -> Region {
        let offset = offset.min(self.bytes);
        Region { start: self.start.wrapping_add(offset), bytes: bytes.min(self.bytes - offset) }
    }
}

/// Bytes that are only read: a plan that stores to them is refused before.
pub fn of_bytes(bytes: &[u8]) -> Region {
    Region { start: bytes.as_ptr().cast_mut(), bytes: bytes.len() }
}

/// Memory of a buffer that is only read.
pub fn of_shared(buffer: &Buffer) -> Region {
    Region { start: buffer.as_ptr().cast_mut(), bytes: buffer.bytes() }
}

/// True when elements of the type may be read in place.
#[must_use]
pub fn is_aligned(bytes: &[u8], dtype: DType) -> bool {
    (bytes.as_ptr() as usize).is_multiple_of(dtype.bytes().unwrap_or(1))
}

/// A copy of bytes that lie off their type's alignment.
#[must_use]
pub fn aligned_copy(bytes: &[u8], dtype: DType) -> Option<Buffer> {
    (!is_aligned(bytes, dtype)).then(|| {
        let mut copy = Buffer::zeroed(bytes.len());
        copy.copy_in(bytes);
        copy
    })
}

/// One element, `None` outside the region.
#[must_use]
pub fn element(region: Region, dtype: DType, at: i64) -> Option<Value> {
    let inside = at >= 0 && at < region.elements(dtype);
    inside.then(|| tgc_ir::tensor::load(dtype, region.as_bytes(), at as usize))
}
