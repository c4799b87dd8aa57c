#include "prelude.cuh"
#include "tile_fill.cuh"
#include "contract_tensor_core.cuh"

// product_f16_1_any_768_768_nt (contract)
//   from MatMul `/layer.0/dense` by rule contract.fold-transpose
//   x0: f16[1, rows, 768]
//   w1: f16[1, 768, 768]
//   x2: f16[768]
//   y3: f16[1, rows, 768]
//   product_f16_1_any_768_768_nt: tensor cores, 16x64x64 tiles, 4 stages; 3.8 us predicted on h200-sxm
struct product_f16_1_any_768_768_nt_slots {
  const f16 *__restrict__ x0;
  const f16 *__restrict__ w1;
  const f16 *__restrict__ x2;
  f16 *__restrict__ y3;
  i64 n_rows;
  typedef float Sum;
  DEVICE i64 groups() const { return 1; }
  DEVICE i64 rows() const { return n_rows; }
  DEVICE i64 columns() const { return 768; }
  DEVICE i64 depth() const { return 768; }
  typedef f16 Element;
  static const bool left_along_k = true, right_along_k = true;
  static const bool left_async = true, right_async = true;
  struct LeftRow { i64 at0; };
  DEVICE LeftRow left_row(i64 g, i64 r) const {
    const i64 m0 = r;
    return {m0 * 768};
  }
  struct LeftStep { i64 at0; };
  DEVICE LeftStep left_step(i64 k) const {
    const i64 k0 = k;
    return {k0};
  }
  DEVICE bool left_inside(const LeftRow &row, const LeftStep &step) const { return true; }
  DEVICE float left(const LeftRow &row, const LeftStep &step) const {
    return to_f32(x0[row.at0 + step.at0]);
  }
  DEVICE const f16 *left_address(const LeftRow &row, const LeftStep &step) const { return x0 + row.at0 + step.at0; }
  struct RightRow { i64 at0; };
  DEVICE RightRow right_row(i64 g, i64 r) const {
    const i64 n0 = r;
    return {n0 * 768};
  }
  struct RightStep { i64 at0; };
  DEVICE RightStep right_step(i64 k) const {
    const i64 k0 = k;
    return {k0};
  }
  DEVICE bool right_inside(const RightRow &row, const RightStep &step) const { return true; }
  DEVICE float right(const RightRow &row, const RightStep &step) const {
    return to_f32(w1[row.at0 + step.at0]);
  }
  DEVICE const f16 *right_address(const RightRow &row, const RightStep &step) const { return w1 + row.at0 + step.at0; }
  template <int RUN> DEVICE void store(i64 g, i64 m, i64 n, const float (&acc)[RUN], int count) const {
    const i64 m0 = m;
    if constexpr (RUN == 8) {
      const i64 n0 = n;
      const pack<f16, 8> p1 = load_pack<f16, 8>(x2 + n0);
      pack<f16, 8> out0;
#pragma unroll
      for (int lane = 0; lane < 8; lane++) {
        out0.at[lane] = to_f16(op::max(acc[lane] + to_f32(p1.at[lane]), 0.0f));
      }
      store_pack<f16, 8>(y3 + m0 * 768 + n0, out0);
      return;
    }
#pragma unroll
    for (int lane = 0; lane < RUN; lane++) {
      if (lane >= count) break;
      const i64 n0 = (n + lane);
      const float v1 = to_f32(x2[n0]);
      y3[m0 * 768 + n0] = to_f16(op::max(acc[lane] + v1, 0.0f));
    }
  }
};
struct product_f16_1_any_768_768_nt_tile { static const int M = 16, N = 64, K = 64, WARP_M = 16, WARP_N = 16, STAGES = 4, SPLITS = 1; };
extern "C" __global__ void __launch_bounds__(128, 1)
product_f16_1_any_768_768_nt(const i64 *__restrict__ sym, const f16 *__restrict__ x0, const f16 *__restrict__ w1, const f16 *__restrict__ x2, f16 *__restrict__ y3) {
  const i64 n_rows = sym[0];
  const product_f16_1_any_768_768_nt_slots slots{x0, w1, x2, y3, n_rows};
  u32 *const tickets = nullptr;
  float *const partial = nullptr;
  contract_tensor_core<product_f16_1_any_768_768_nt_tile>(slots, partial, tickets);
}
