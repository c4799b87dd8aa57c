// The device prelude of every generated kernel: storage types, conversions, vector access, asynchronous
// copies, tensor-core instructions, reductions and integer helpers. Self-contained: no #include, no toolkit.
// Arithmetic on half types is done in float; kernels are compiled without contraction, so an fma is one
// only where the text says so. PTX instructions are those of the PTX ISA manual, section 9.7.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__
#define INFINITY_F __int_as_float(0x7f800000)
#define NAN_F __int_as_float(0x7fffffff)
#define INFINITY_D __longlong_as_double(0x7ff0000000000000LL)
#define NAN_D __longlong_as_double(0x7fffffffffffffffLL)

// ---- storage types ------------------------------------------------------------------------------

struct f16 { u16 bits; };
struct bf16 { u16 bits; };
struct f8e4m3 { u8 bits; };
struct f8e5m2 { u8 bits; };

template <class T, class F> DEVICE T bits_as(F x) { union { F from; T to; } u = {x}; return u.to; }

DEVICE float to_f32(float x) { return x; }
DEVICE float to_f32(double x) { return (float)x; }
DEVICE float to_f32(f16 x) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits)); return r; }
DEVICE float to_f32(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
DEVICE float to_f32(f8e5m2 x) { f16 h; h.bits = (u16)(x.bits << 8); return to_f32(h); }
DEVICE float to_f32(f8e4m3 x) {
  const u32 magnitude = x.bits & 0x7f;
  if (magnitude == 0x7f) return NAN_F;
  const float value = __uint_as_float(magnitude << 20) * __uint_as_float(0x7b800000); // rebias 2^120
  return x.bits & 0x80 ? -value : value;
}

DEVICE f16 to_f16(float x) { f16 r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x)); return r; }
DEVICE f16 to_f16(double x) { f16 r; asm("cvt.rn.f16.f64 %0, %1;" : "=h"(r.bits) : "d"(x)); return r; }
DEVICE bf16 to_bf16(float x) { bf16 r; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(x)); return r; }
// Round to odd first, so that the second rounding is the only one that counts.
DEVICE float f32_to_odd(double x) {
  const float near = __double2float_rz(x);
  return (double)near == x || near != near ? near : __uint_as_float(__float_as_uint(near) | 1u);
}
DEVICE bf16 to_bf16(double x) { return to_bf16(f32_to_odd(x)); }

// Value to storage and back, by storage type; the computing type of a half is float.
template <class T> struct storage { DEVICE static T load(T x) { return x; } DEVICE static T store(T x) { return x; } };
template <> struct storage<f16> { DEVICE static float load(f16 x) { return to_f32(x); } DEVICE static f16 store(float x) { return to_f16(x); } };
template <> struct storage<bf16> { DEVICE static float load(bf16 x) { return to_f32(x); } DEVICE static bf16 store(float x) { return to_bf16(x); } };
template <> struct storage<f8e4m3> { DEVICE static float load(f8e4m3 x) { return to_f32(x); } };
template <> struct storage<f8e5m2> { DEVICE static float load(f8e5m2 x) { return to_f32(x); } };
template <> struct storage<bool> { DEVICE static bool load(bool x) { return x; } DEVICE static bool store(bool x) { return x; } };

DEVICE float round_f16(float x) { return to_f32(to_f16(x)); }
DEVICE float round_bf16(float x) { return to_f32(to_bf16(x)); }

// ---- vector access --------------------------------------------------------------------------------

// N neighbouring elements, moved by one instruction (1 to 16 bytes) or two (32 bytes).
template <class T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) pack { T at[N]; };
template <int BYTES> struct word;
template <> struct word<1> { typedef u8 type; };
template <> struct word<2> { typedef u16 type; };
template <> struct word<4> { typedef u32 type; };
template <> struct word<8> { typedef uint2 type; };
template <> struct word<16> { typedef uint4 type; };
struct alignas(16) two_words { uint4 low, high; };
template <> struct word<32> { typedef two_words type; };

template <class T, int N> DEVICE pack<T, N> load_pack(const T *p) {
  typedef typename word<sizeof(T) * N>::type W;
  union { W w; pack<T, N> v; } u = {};
  u.w = *(const W *)p;
  return u.v;
}
template <class T, int N> DEVICE void store_pack(T *p, const pack<T, N> &v) {
  typedef typename word<sizeof(T) * N>::type W;
  if constexpr (sizeof(T) == 2 && N >= 2) {
    union { W w; u32 halves[N / 2]; } u = {};
#pragma unroll
    for (int i = 0; i < N / 2; i++) {
      union { T element; u16 bits; } low = {v.at[2 * i]}, high = {v.at[2 * i + 1]};
      asm("mov.b32 %0, {%1, %2};" : "=r"(u.halves[i]) : "h"(low.bits), "h"(high.bits));
    }
    *(W *)p = u.w;
  } else {
    union { W w; pack<T, N> v; } u = {};
    u.v = v;
    *(W *)p = u.w;
  }
}
// Streams data that is read once past the first cache (weights of a matrix-vector product).
DEVICE uint4 load_once(const void *p) {
  uint4 r;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w) : "l"(p));
  return r;
}

// ---- asynchronous copies to shared memory ------------------------------------------------------------

DEVICE u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }
// Copies BYTES (4, 8 or 16, aligned to themselves); where `valid` is false zeros are written and `src` is not read.
template <int BYTES> DEVICE void copy_async(u32 dst, const void *src, bool valid) {
  const int size = valid ? BYTES : 0;
  if (BYTES == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(size) : "memory");
  else asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(dst), "l"(src), "n"(BYTES), "r"(size) : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// ---- tensor cores -------------------------------------------------------------------------------------

DEVICE void load_matrices(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}
DEVICE void load_matrices_transposed(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
}
// d += a b; a 16x16 row-major, b 16x8 column-major, fragments as in PTX ISA 9.7.14.5.
DEVICE void mma_16816(f16, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE void mma_16816(bf16, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// d += a b with tf32 operands; a 16x8, b 8x8.
DEVICE void mma_1688_tf32(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE u32 to_tf32(float x) { u32 r; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x)); return r; }
// What rounding to tf32 loses; zero where it is not finite, so that infinities and NaN come from the leading part alone.
DEVICE u32 tf32_rest(float x, u32 leading) {
  const float rest = x - __uint_as_float(leading);
  return (__float_as_uint(rest) & 0x7f800000u) == 0x7f800000u ? 0u : to_tf32(rest);
}
DEVICE u32 pack_halves(f16, float low, float high) { u32 r; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low)); return r; }
DEVICE u32 pack_halves(bf16, float low, float high) { u32 r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low)); return r; }
// Byte offset of 16-byte chunk `chunk` of row `row` in a shared tile of CHUNKS chunks a row, so that eight
// rows of one chunk column lie in different banks.
template <int CHUNKS> DEVICE u32 swizzle(int row, int chunk) {
  static_assert(CHUNKS >= 2 && (CHUNKS & (CHUNKS - 1)) == 0, "a tile row is a power of two of chunks");
  if constexpr (CHUNKS >= 8) return (u32)(row * CHUNKS + (chunk ^ (row & 7))) * 16u;
  else return (u32)(row * CHUNKS + (chunk ^ ((row / (8 / CHUNKS)) & (CHUNKS - 1)))) * 16u;
}

// ---- order and extremes, as the reference defines them: NaN wins -------------------------------------

template <class T> DEVICE T maximum(T a, T b) { return a > b ? a : b; }
template <class T> DEVICE T minimum(T a, T b) { return a < b ? a : b; }
template <> DEVICE float maximum(float a, float b) { float r; asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
template <> DEVICE float minimum(float a, float b) { float r; asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
template <> DEVICE double maximum(double a, double b) { return a != a ? a : b != b ? b : fmax(a, b); }
template <> DEVICE double minimum(double a, double b) { return a != a ? a : b != b ? b : fmin(a, b); }

// ---- scalar functions, named as in the scalar table --------------------------------------------------------

template <class T> struct is_float { static const bool yes = false; };
template <> struct is_float<float> { static const bool yes = true; };
template <> struct is_float<double> { static const bool yes = true; };
template <class A, class B> struct is_same { static const bool yes = false; };
template <class A> struct is_same<A, A> { static const bool yes = true; };
template <class T> struct is_signed { static const bool yes = (T)-1 < (T)0; };

namespace op {
#define FLOAT_FUNCTION(name, single, precise) \
  DEVICE float name(float x) { return single(x); } \
  DEVICE double name(double x) { return precise(x); }
FLOAT_FUNCTION(exp, ::expf, ::exp)
FLOAT_FUNCTION(log, ::logf, ::log)
FLOAT_FUNCTION(expm1, ::expm1f, ::expm1)
FLOAT_FUNCTION(log1p, ::log1pf, ::log1p)
FLOAT_FUNCTION(sqrt, ::sqrtf, ::sqrt)
FLOAT_FUNCTION(rsqrt, ::rsqrtf, ::rsqrt)
FLOAT_FUNCTION(erf, ::erff, ::erf)
FLOAT_FUNCTION(tanh, ::tanhf, ::tanh)
FLOAT_FUNCTION(sin, ::sinf, ::sin)
FLOAT_FUNCTION(cos, ::cosf, ::cos)
FLOAT_FUNCTION(tan, ::tanf, ::tan)
FLOAT_FUNCTION(asin, ::asinf, ::asin)
FLOAT_FUNCTION(acos, ::acosf, ::acos)
FLOAT_FUNCTION(atan, ::atanf, ::atan)
FLOAT_FUNCTION(sinh, ::sinhf, ::sinh)
FLOAT_FUNCTION(cosh, ::coshf, ::cosh)
FLOAT_FUNCTION(asinh, ::asinhf, ::asinh)
FLOAT_FUNCTION(acosh, ::acoshf, ::acosh)
FLOAT_FUNCTION(atanh, ::atanhf, ::atanh)
FLOAT_FUNCTION(floor, ::floorf, ::floor)
FLOAT_FUNCTION(ceil, ::ceilf, ::ceil)
FLOAT_FUNCTION(round, ::rintf, ::rint)
FLOAT_FUNCTION(trunc, ::truncf, ::trunc)
#undef FLOAT_FUNCTION
DEVICE float sigmoid(float x) { return 1.0f / (1.0f + ::expf(-x)); }
DEVICE double sigmoid(double x) { return 1.0 / (1.0 + ::exp(-x)); }
DEVICE bool is_inf(float x) { return ::fabsf(x) == INFINITY_F; }
DEVICE bool is_inf(double x) { return ::fabs(x) == INFINITY_D; }
DEVICE float pow(float x, float y) { return ::powf(x, y); }
DEVICE double pow(double x, double y) { return ::pow(x, y); }
DEVICE float rem(float x, float y) { return ::fmodf(x, y); }
DEVICE double rem(double x, double y) { return ::fmod(x, y); }
DEVICE float abs(float x) { return ::fabsf(x); }
DEVICE double abs(double x) { return ::fabs(x); }

template <class T> DEVICE T abs(T x) { return x < T(0) ? T(-x) : x; }
template <class T> DEVICE T div(T x, T y) { if constexpr (is_float<T>::yes) return x / y; else return y == T(0) ? T(0) : T(x / y); }
template <class T> DEVICE T rem(T x, T y) { return y == T(0) ? T(0) : T(x % y); }
template <class T> DEVICE T mod(T x, T y) {
  const T r = rem(x, y);
  return r != T(0) && (r < T(0)) != (y < T(0)) ? T(r + y) : r;
}
template <class T> DEVICE T pow(T x, T y) {
  if (y < T(0)) return x == T(1) ? T(1) : is_signed<T>::yes && x == T(-1) ? (y % 2 == 0 ? T(1) : T(-1)) : T(0);
  T power = 1;
  for (; y > T(0); y = T(y >> 1), x = T(x * x)) if (y & 1) power = T(power * x);
  return power;
}
template <class T> DEVICE T shl(T x, T y) { return y < T(0) || y >= T(8 * sizeof(T)) ? T(0) : T(x << y); }
template <class T> DEVICE T shr(T x, T y) { return y >= T(8 * sizeof(T)) ? (x < T(0) ? T(-1) : T(0)) : T(x >> (y < T(0) ? T(0) : y)); }
template <class T> DEVICE T max(T x, T y) { return maximum(x, y); }
template <class T> DEVICE T min(T x, T y) { return minimum(x, y); }

// Truncates towards zero and saturates; NaN gives zero.
template <class To, class From> DEVICE To truncated(From x) {
  if (x != x) return To(0);
  const double wide = x;
  if constexpr (sizeof(To) == 8) return is_signed<To>::yes ? (To)__double2ll_rz(wide) : (To)__double2ull_rz(wide);
  else if constexpr (is_same<To, u32>::yes) return is_same<From, float>::yes ? __float2uint_rz((float)x) : __double2uint_rz(wide);
  else {
    const i32 whole = is_same<From, float>::yes ? __float2int_rz((float)x) : __double2int_rz(wide);
    const i32 low = is_signed<To>::yes ? (i32)(-(1LL << (8 * sizeof(To) - 1))) : 0;
    const i32 high = (i32)((1LL << (8 * sizeof(To) - (is_signed<To>::yes ? 1 : 0))) - 1);
    return (To)(whole < low ? low : whole > high ? high : whole);
  }
}
// Converts as the reference does: integers wrap, floats round to nearest even, anything becomes bool by comparison with zero.
template <class To, class From> DEVICE To cast(From x) {
  if constexpr (is_same<To, bool>::yes) return x != From(0);
  else if constexpr (is_float<From>::yes && !is_float<To>::yes) return truncated<To>(x);
  else return (To)x;
}
template <class From> DEVICE float cast_f16(From x) { if constexpr (is_same<From, float>::yes) return round_f16(x); else return to_f32(to_f16((double)x)); }
template <class From> DEVICE float cast_bf16(From x) { if constexpr (is_same<From, float>::yes) return round_bf16(x); else return to_f32(to_bf16((double)x)); }
} // namespace op

template <class T> DEVICE T lowest() {
  if constexpr (is_same<T, float>::yes) return -INFINITY_F;
  else if constexpr (is_same<T, double>::yes) return -INFINITY_D;
  else return is_signed<T>::yes ? (T)((T)1 << (8 * sizeof(T) - 1)) : T(0);
}
template <class T> DEVICE T highest() {
  if constexpr (is_same<T, float>::yes) return INFINITY_F;
  else if constexpr (is_same<T, double>::yes) return INFINITY_D;
  else return T(~(is_signed<T>::yes ? (T)((T)1 << (8 * sizeof(T) - 1)) : T(0)));
}

// A value and where it stands; `at` is -1 before the first.
template <class T> struct ranked { T value; i64 at; };
// An order in which NaN is the largest.
template <class T> DEVICE bool is_above(T a, T b) { return a > b || (a != a && b == b); }
template <class T> DEVICE bool is_less(T a, T b) { return a < b || (a == a && b != b); }
// Picks of equals the first (EARLY) or the last.
template <bool LARGEST, bool EARLY> struct best_of {
  template <class T> DEVICE ranked<T> operator()(ranked<T> a, ranked<T> b) const {
    if (a.at < 0 || b.at < 0) return a.at < 0 ? b : a;
    const bool a_wins = LARGEST ? is_above(a.value, b.value) : is_less(a.value, b.value);
    const bool b_wins = LARGEST ? is_above(b.value, a.value) : is_less(b.value, a.value);
    if (a_wins || b_wins) return a_wins ? a : b;
    return (a.at < b.at) == EARLY ? a : b;
  }
};

// a b + c, rounded once for floats.
template <class T> DEVICE T multiply_add(T a, T b, T c) {
  if constexpr (is_same<T, float>::yes) return fmaf(a, b, c);
  else if constexpr (is_same<T, double>::yes) return fma(a, b, c);
  else return T(c + a * b);
}

// ---- reductions over a warp and a block, in an order that depends on nothing but the thread count -----

struct sum_of { template <class T> DEVICE T operator()(T a, T b) const { return a + b; } };
struct product_of { template <class T> DEVICE T operator()(T a, T b) const { return a * b; } };
struct maximum_of { template <class T> DEVICE T operator()(T a, T b) const { return maximum(a, b); } };
struct minimum_of { template <class T> DEVICE T operator()(T a, T b) const { return minimum(a, b); } };
struct any_of { template <class T> DEVICE T operator()(T a, T b) const { return a | b; } };
struct all_of { template <class T> DEVICE T operator()(T a, T b) const { return a & b; } };
struct xor_of { template <class T> DEVICE T operator()(T a, T b) const { return a ^ b; } };

template <class T> DEVICE T shuffle_xor(T x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
template <> DEVICE bool shuffle_xor(bool x, int mask) { return __shfl_xor_sync(0xffffffffu, (int)x, mask) != 0; }
template <> DEVICE i8 shuffle_xor(i8 x, int mask) { return (i8)__shfl_xor_sync(0xffffffffu, (int)x, mask); }
template <> DEVICE u8 shuffle_xor(u8 x, int mask) { return (u8)__shfl_xor_sync(0xffffffffu, (int)x, mask); }
template <> DEVICE i16 shuffle_xor(i16 x, int mask) { return (i16)__shfl_xor_sync(0xffffffffu, (int)x, mask); }
template <> DEVICE u16 shuffle_xor(u16 x, int mask) { return (u16)__shfl_xor_sync(0xffffffffu, (int)x, mask); }

template <class T> DEVICE ranked<T> shuffle_xor(ranked<T> x, int mask) { return {shuffle_xor(x.value, mask), shuffle_xor(x.at, mask)}; }

// The value of the lane `step` places before, and that of one lane; any 1, 2, 4 or 8 byte value.
template <class T, class F> DEVICE T shuffle_words(T x, F move) {
  if constexpr (sizeof(T) == 8) return move(x);
  else if constexpr (is_same<T, float>::yes) return move(x);
  else return (T)move((i32)x);
}
template <class T> DEVICE T shuffle_up(T x, int step) { return shuffle_words(x, [&](auto v) { return __shfl_up_sync(0xffffffffu, v, step); }); }
template <class T> DEVICE T shuffle_from(T x, int lane) { return shuffle_words(x, [&](auto v) { return __shfl_sync(0xffffffffu, v, lane); }); }

// Folds over groups of LANES neighbouring lanes; every lane gets the result.
template <int LANES, class T, class F> DEVICE T fold_lanes(T x, F f) {
#pragma unroll
  for (int mask = LANES / 2; mask; mask >>= 1) x = f(x, shuffle_xor(x, mask));
  return x;
}
// Folds over a block of THREADS (a multiple of 32); every thread gets the result. `room` holds THREADS / 32 values.
template <int THREADS, class T, class F> DEVICE T fold_block(T x, T *room, F f) {
  x = fold_lanes<32>(x, f);
  if (THREADS == 32) return x;
  __syncthreads();
  if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = x;
  __syncthreads();
  x = room[0];
#pragma unroll
  for (int warp = 1; warp < THREADS / 32; warp++) x = f(x, room[warp]);
  return x;
}

// True in exactly the last of `count` blocks that arrive at `ticket`; what the earlier ones wrote before is
// then visible. The ticket returns to zero by itself (atom.inc wraps).
DEVICE bool is_last_block(u32 *ticket, u32 count) {
  __shared__ u32 arrived;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;" : "=r"(arrived) : "l"(ticket), "r"(count - 1) : "memory");
  __syncthreads();
  const bool last = arrived == count - 1;
  if (last) __threadfence();
  return last;
}

// ---- integers ------------------------------------------------------------------------------------------

// Division and remainder towards minus infinity, as dims define them; zero divisors give zero.
DEVICE i32 floor_div(i32 a, i32 b) { if (b == 0) return 0; const i32 q = a / b; return q - (a % b != 0 && (a < 0) != (b < 0)); }
DEVICE i64 floor_div(i64 a, i64 b) {
  if (((a | b) >> 31) == 0) return b == 0 ? 0 : (i64)((u32)a / (u32)b); // the usual case, five times cheaper
  if (b == 0) return 0;
  const i64 q = a / b;
  return q - (a % b != 0 && (a < 0) != (b < 0));
}
DEVICE i32 floor_mod(i32 a, i32 b) { return a - floor_div(a, b) * b; }
DEVICE i64 floor_mod(i64 a, i64 b) { return a - floor_div(a, b) * b; }
// The same for operands known to be non-negative.
DEVICE i32 index_div(i32 a, i32 b) { return (i32)((u32)a / (u32)b); }
DEVICE i64 index_div(i64 a, i64 b) { return ((a | b) >> 31) == 0 ? (i64)((u32)a / (u32)b) : a / b; }
DEVICE i32 index_mod(i32 a, i32 b) { return a - index_div(a, b) * b; }
DEVICE i64 index_mod(i64 a, i64 b) { return a - index_div(a, b) * b; }
#define MIXED_WIDTHS(name) \
  DEVICE i64 name(i64 a, i32 b) { return name(a, (i64)b); } \
  DEVICE i64 name(i32 a, i64 b) { return name((i64)a, b); }
MIXED_WIDTHS(floor_div)
MIXED_WIDTHS(floor_mod)
MIXED_WIDTHS(index_div)
MIXED_WIDTHS(index_mod)
#undef MIXED_WIDTHS
DEVICE i64 ceil_div(i64 a, i64 b) { return floor_div(a + b - 1, b); }
