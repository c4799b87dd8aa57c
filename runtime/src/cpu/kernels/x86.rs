//! AVX2 and AVX-512 lanes. A token of either type exists only after detection, which is what makes its lane
//! operations safe.

use core::arch::x86_64::*;

use super::simd::Simd;

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

/// Proof of AVX-512 F, BW, DQ, VL and of everything [`Avx2`] proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512(());

impl Avx2 {
    /// The token, when the CPU has the instructions.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let bits = is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt");
        let lanes = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        (bits && lanes).then_some(Self(()))
    }
}

impl Avx512 {
    /// The token, when the CPU has the instructions.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        (Avx2::detect().is_some() && wide).then_some(Self(()))
    }
}

/// Lane operations as expressions over intrinsics.
macro_rules! lanes {
    ($($name:ident $(<const $k:ident>)? ($($a:ident: $t:ty),*) -> $r:ty = $e:expr;)*) => {$(
        #[inline(always)]
        fn $name $(<const $k: u32>)? (self, $($a: $t),*) -> $r {
            // SAFETY: `self` proves that the CPU has these instructions, and they touch no memory.
            unsafe { $e }
        }
    )*};
}

/// Memory operations as expressions over intrinsics.
macro_rules! memory {
    ($($name:ident($($a:ident: $t:ty),*) $(-> $r:ty)? = $e:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($a: $t),*) $(-> $r)? {
            // SAFETY: `self` proves the instructions; the caller vouches for the memory.
            unsafe { $e }
        }
    )*};
}

impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;
    const N: usize = 16;
    const MR: usize = 8;
    const ACC: usize = 24;
    const NV: usize = 4;

    memory! {
        load(p: *const f32) -> __m512 = _mm512_loadu_ps(p);
        store(p: *mut f32, v: __m512) = _mm512_storeu_ps(p, v);
        load_n(p: *const f32, n: usize) -> __m512 = _mm512_maskz_loadu_ps(first16(n), p);
        store_n(p: *mut f32, v: __m512, n: usize) = _mm512_mask_storeu_ps(p, first16(n), v);
        load_f16(p: *const u16) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()));
        store_f16(p: *mut u16, v: __m512) = _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<0x08>(v));
    }
    lanes! {
        splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        abs(a: __m512) -> __m512 = _mm512_abs_ps(a);
        copysign(a: __m512, b: __m512) -> __m512 = _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xCA>(
            _mm512_set1_epi32(i32::MIN), _mm512_castps_si512(b), _mm512_castps_si512(a)));
        round(a: __m512) -> __m512 = _mm512_roundscale_ps::<0x08>(a);
        sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        scale2(a: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(a, n);
        lt(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
        eq(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b);
        select(m: __mmask16, a: __m512, b: __m512) -> __m512 = _mm512_mask_blend_ps(m, b, a);
        hsum(a: __m512) -> f32 = {
            let halves = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            hsum8(halves)
        };
        hmax(a: __m512) -> f32 = {
            let halves = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            hmax8(halves)
        };
        isplat(x: i32) -> __m512i = _mm512_set1_epi32(x);
        bits(a: __m512) -> __m512i = _mm512_castps_si512(a);
        of_bits(a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        to_int(a: __m512) -> __m512i = _mm512_cvtps_epi32(a);
        to_float(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        iadd(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        isub(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        iand(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        shl<const K>(a: __m512i) -> __m512i = _mm512_slli_epi32::<K>(a);
        shr<const K>(a: __m512i) -> __m512i = _mm512_srai_epi32::<K>(a);
        ieq(a: __m512i, b: __m512i) -> __mmask16 = _mm512_cmpeq_epi32_mask(a, b);
    }
    #[inline(always)]
    fn any(self, m: __mmask16) -> bool {
        m != 0
    }
}

impl Simd for Avx2 {
    type F = __m256;
    type I = __m256i;
    type M = __m256;
    const N: usize = 8;
    const MR: usize = 6;
    const ACC: usize = 12;
    const NV: usize = 2;

    memory! {
        load(p: *const f32) -> __m256 = _mm256_loadu_ps(p);
        store(p: *mut f32, v: __m256) = _mm256_storeu_ps(p, v);
        load_n(p: *const f32, n: usize) -> __m256 = _mm256_maskload_ps(p, first8(n));
        store_n(p: *mut f32, v: __m256, n: usize) = _mm256_maskstore_ps(p, first8(n), v);
        load_f16(p: *const u16) -> __m256 = _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
        store_f16(p: *mut u16, v: __m256) = _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<0x00>(v));
    }
    lanes! {
        splat(x: f32) -> __m256 = _mm256_set1_ps(x);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        abs(a: __m256) -> __m256 = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
        copysign(a: __m256, b: __m256) -> __m256 = {
            let sign = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b))
        };
        round(a: __m256) -> __m256 = _mm256_round_ps::<0x08>(a);
        sqrt(a: __m256) -> __m256 = _mm256_sqrt_ps(a);
        scale2(a: __m256, n: __m256) -> __m256 = {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias));
            _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(low)), _mm256_castsi256_ps(high))
        };
        lt(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LT_OQ>(a, b);
        eq(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b);
        select(m: __m256, a: __m256, b: __m256) -> __m256 = _mm256_blendv_ps(b, a, m);
        any(m: __m256) -> bool = _mm256_movemask_ps(m) != 0;
        hsum(a: __m256) -> f32 = hsum8(a);
        hmax(a: __m256) -> f32 = hmax8(a);
        isplat(x: i32) -> __m256i = _mm256_set1_epi32(x);
        bits(a: __m256) -> __m256i = _mm256_castps_si256(a);
        of_bits(a: __m256i) -> __m256 = _mm256_castsi256_ps(a);
        to_int(a: __m256) -> __m256i = _mm256_cvtps_epi32(a);
        to_float(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        iadd(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        isub(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
        iand(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        ieq(a: __m256i, b: __m256i) -> __m256 = _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b));
    }
    #[inline(always)]
    fn shl<const K: u32>(self, a: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2; the shift count comes from a register and touches no memory.
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(K as i32)) }
    }
    #[inline(always)]
    fn shr<const K: u32>(self, a: __m256i) -> __m256i {
        // SAFETY: as in `shl`.
        unsafe { _mm256_sra_epi32(a, _mm_cvtsi32_si128(K as i32)) }
    }
}

/// Mask of the first `n <= 16` lanes.
#[inline(always)]
fn first16(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as u16
}

/// Mask of the first `n <= 8` lanes.
#[inline(always)]
fn first8(n: usize) -> __m256i {
    static EDGE: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    debug_assert!(n <= 8);
    // SAFETY: reads 8 of the 16 entries from 8 - n <= 8 on; callers hold an `Avx2`.
    unsafe { _mm256_loadu_si256(EDGE.as_ptr().add(8 - n).cast()) }
}

/// # Safety
/// The CPU has AVX.
#[inline(always)]
unsafe fn hsum8(a: __m256) -> f32 {
    // SAFETY: the caller vouches for AVX; no memory is touched.
    unsafe {
        let s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps::<1>(s, s)))
    }
}

/// # Safety
/// The CPU has AVX.
#[inline(always)]
unsafe fn hmax8(a: __m256) -> f32 {
    // SAFETY: the caller vouches for AVX; no memory is touched.
    unsafe {
        let s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let s = _mm_max_ps(s, _mm_movehl_ps(s, s));
        _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps::<1>(s, s)))
    }
}
