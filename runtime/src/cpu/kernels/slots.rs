//! Scratch tiles: numbered slots of equal capacity, each holding one intermediate value of a tile program.
//!
//! Slots are raw memory viewed as the value's kind; every access is checked against slot count and capacity, and
//! two slots never overlap, which is the proof behind the kernels that read some and write another.

use super::buffer::{Buffer, LINE};

/// What a slot's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Single precision; narrower floats are widened on load and rounded on store.
    F32,
    /// Double precision.
    F64,
    /// Every integer type; results are wrapped to the type after each operation.
    I64,
    /// One byte, 0 or 1.
    Bool,
}

/// A plain element of a slot.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// The kind it belongs to.
    const KIND: Kind;
}

impl Element for f32 {
    const KIND: Kind = Kind::F32;
}
impl Element for f64 {
    const KIND: Kind = Kind::F64;
}
impl Element for i64 {
    const KIND: Kind = Kind::I64;
}
impl Element for u8 {
    const KIND: Kind = Kind::Bool;
}

/// Memory of all slots of one worker.
#[derive(Debug)]
pub struct Slots {
    memory: Buffer,
    stride: usize,
    count: usize,
    capacity: usize,
    /// Per slot: where its value lies instead, or null.
    elsewhere: Vec<*const u8>,
}

// SAFETY: the pointers are used only between the load that sets them and the end of the same program run, by the
// worker that owns the slots; the memory they name is shared read-only meanwhile.
unsafe impl Send for Slots {}
// SAFETY: as above; a shared reference gives no access to what they name.
unsafe impl Sync for Slots {}

/// Elements past a slot's capacity that vector code may touch.
const SLACK: usize = 16;

impl Slots {
    /// No slots yet.
    #[must_use]
    pub fn new() -> Self {
        Self { memory: Buffer::zeroed(0), stride: 0, count: 0, capacity: 0, elsewhere: Vec::new() }
    }

    /// Bytes between slots of `capacity` elements; odd in lines, so that slots do not share cache sets.
    fn stride_of(capacity: usize) -> usize {
        ((capacity + SLACK) * size_of::<f64>()).next_multiple_of(LINE) + LINE
    }

    /// Makes `count` slots of `capacity` elements; contents are unspecified after a change of shape.
    pub fn shape(&mut self, count: usize, capacity: usize) {
        if self.count >= count && self.capacity == capacity {
            return;
        }
        self.stride = Self::stride_of(capacity);
        self.memory.reserve(self.stride * count);
        (self.count, self.capacity) = (count, capacity);
        self.elsewhere.clear();
        self.elsewhere.resize(count, std::ptr::null());
    }

    /// Elements per slot.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Lets a slot stand for memory elsewhere until it is written.
    ///
    /// # Safety
    /// `at` is readable for as many elements as the slot's readers ask for, rounded up to 16, until the slot is
    /// written or the run of the program ends, and nobody writes that memory meanwhile.
    pub(crate) unsafe fn stand_for(&mut self, slot: u16, at: *const u8) {
        self.elsewhere[slot as usize] = at;
    }

    /// First element of a slot's value, for reading `n` elements.
    #[inline(always)]
    pub(crate) fn source<T: Element>(&mut self, slot: u16, n: usize) -> *const T {
        assert!(n <= self.capacity, "tiles are cut to the capacity");
        let elsewhere = self.elsewhere[slot as usize];
        if elsewhere.is_null() { self.base(slot) } else { elsewhere.cast() }
    }

    /// The first `n` elements of a slot's value.
    #[inline(always)]
    pub fn view<T: Element>(&mut self, slot: u16, n: usize) -> &[T] {
        // SAFETY: in bounds by the check in `source`; any bits are an element of any kind.
        unsafe { std::slice::from_raw_parts(self.source(slot, n), n) }
    }

    /// First element of a slot's own memory, which from now on holds its value.
    #[inline(always)]
    pub(crate) fn ptr<T: Element>(&mut self, slot: u16) -> *mut T {
        self.elsewhere[slot as usize] = std::ptr::null();
        self.base(slot)
    }

    #[inline(always)]
    fn base<T: Element>(&mut self, slot: u16) -> *mut T {
        assert!((slot as usize) < self.count, "slots are counted when a program is compiled");
        // SAFETY: `slot < count` and the memory holds `count` strides.
        unsafe { self.memory.as_mut_ptr().add(slot as usize * self.stride).cast() }
    }

    /// The first `n` elements of a slot.
    #[inline(always)]
    pub fn slice<T: Element>(&mut self, slot: u16, n: usize) -> &mut [T] {
        assert!(n <= self.capacity + SLACK);
        // SAFETY: in bounds by the assertion; any bits are an element of any kind (bytes are only compared with
        // zero); the exclusive borrow of `self` makes the view unique.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(slot), n) }
    }

    /// Copies of the pointer that kernels use, after checking `n` against the capacity.
    #[inline(always)]
    pub(crate) fn checked<T: Element>(&mut self, slot: u16, n: usize) -> *mut T {
        assert!(n <= self.capacity, "tiles are cut to the capacity");
        self.ptr(slot)
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::new()
    }
}
