#include "prelude.cuh"

// add_gelu_f16 (loops)
//   from MatMul `/layer.0/dense` by rule contract.fold-transpose
//   x0: f16[rows, 768]
//   w1: f16[768]
//   y2: f16[rows, 768]
//   add_gelu_f16: 256 threads, 8 elements a thread; 1.4 us predicted on h200-sxm
extern "C" __global__ void __launch_bounds__(256, 1)
add_gelu_f16(const i64 *__restrict__ sym, const f16 *__restrict__ x0, const f16 *__restrict__ w1, f16 *__restrict__ y2) {
  const i64 n_rows = sym[0];
  const i64 points = n_rows * 96;
  for (i64 p = blockIdx.x * (i64)256 + threadIdx.x; p < points; p += gridDim.x * (i64)256) {
    const i64 i0 = index_div(p, 96);
    const i64 v = p - i0 * 96;
    const i64 i1 = v * 8;
    const pack<f16, 8> p0 = load_pack<f16, 8>(x0 + i0 * 768 + i1);
    const pack<f16, 8> p2 = load_pack<f16, 8>(w1 + i1);
    pack<f16, 8> out0;
#pragma unroll
    for (int lane = 0; lane < 8; lane++) {
      const float v4 = to_f32(p0.at[lane]) + to_f32(p2.at[lane]);
      out0.at[lane] = to_f16((v4 * 0.5f) * (op::erf(v4 * 0.70710677f) + 1.0f));
    }
    store_pack<f16, 8>(y2 + i0 * 768 + i1, out0);
  }
}
