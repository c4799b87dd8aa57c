//! The vector interface that every kernel is written over.
//!
//! A value of a type implementing [`Simd`] is a proof that the CPU has the instructions (it can only be made
//! by detection), so the lane operations are safe; only memory access through pointers is not.
//! Knows no tensor, no tile, no program.

/// Lanes of one instruction set. Comparisons with NaN are false.
pub trait Simd: Copy + Send + Sync + 'static {
    /// `N` lanes of f32.
    type F: Copy;
    /// `N` lanes of i32.
    type I: Copy;
    /// `N` truth values.
    type M: Copy;
    /// Lanes per vector.
    const N: usize;
    /// Rows of the largest contraction block.
    const MR: usize;
    /// Accumulator registers a contraction block may use; blocks hold `MR * NV <= ACC`.
    const ACC: usize;
    /// Widest panel in vectors.
    const NV: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// # Safety
    /// `p` is readable for `N` floats.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// `p` is writable for `N` floats.
    unsafe fn store(self, p: *mut f32, v: Self::F);
    /// First `n <= N` lanes from memory, the rest zero.
    /// # Safety
    /// `p` is readable for `n` floats.
    unsafe fn load_n(self, p: *const f32, n: usize) -> Self::F;
    /// Stores the first `n <= N` lanes.
    /// # Safety
    /// `p` is writable for `n` floats.
    unsafe fn store_n(self, p: *mut f32, v: Self::F, n: usize);
    /// Lanes of IEEE half precision, widened.
    /// # Safety
    /// `p` is readable for `N` halves.
    unsafe fn load_f16(self, p: *const u16) -> Self::F;
    /// Lanes rounded to nearest-even half precision.
    /// # Safety
    /// `p` is writable for `N` halves.
    unsafe fn store_f16(self, p: *mut u16, v: Self::F);

    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the CPU can, twice on the portable path.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; `b` when the two are unordered.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` when the two are unordered.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// Clears the sign bit.
    fn abs(self, a: Self::F) -> Self::F;
    /// Magnitude of `a`, sign of `b`.
    fn copysign(self, a: Self::F, b: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// Square root.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `a * 2^n` for integral `n` in -300..=300, correct for subnormal and overflowing results.
    fn scale2(self, a: Self::F, n: Self::F) -> Self::F;
    /// `a < b`
    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a == b`
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// `m ? a : b`
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;
    /// Some lane of the mask is set.
    fn any(self, m: Self::M) -> bool;
    /// Sum of the lanes, in an order fixed per instruction set.
    fn hsum(self, a: Self::F) -> f32;
    /// Largest lane; unspecified which when a lane is NaN.
    fn hmax(self, a: Self::F) -> f32;

    /// All lanes `x`.
    fn isplat(self, x: i32) -> Self::I;
    /// Bit pattern of the floats.
    fn bits(self, a: Self::F) -> Self::I;
    /// Floats of a bit pattern.
    fn of_bits(self, a: Self::I) -> Self::F;
    /// Nearest integers; unspecified outside the i32 range.
    fn to_int(self, a: Self::F) -> Self::I;
    /// Exact up to 2^24.
    fn to_float(self, a: Self::I) -> Self::F;
    /// Wrapping sum.
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I;
    /// Wrapping difference.
    fn isub(self, a: Self::I, b: Self::I) -> Self::I;
    /// Bitwise and.
    fn iand(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a << K`
    fn shl<const K: u32>(self, a: Self::I) -> Self::I;
    /// `a >> K`, arithmetic.
    fn shr<const K: u32>(self, a: Self::I) -> Self::I;
    /// `a == b`
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M;
}

/// Work written once over [`Simd`]; [`super::Isa::run`] instantiates it per instruction set.
///
/// `run` and everything it calls per element must be `#[inline(always)]`, else the callee is compiled without
/// the instruction set.
pub trait Kernel {
    /// What the work returns.
    type Out;
    /// The work.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}
