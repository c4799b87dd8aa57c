// Contraction with few rows (matrix-vector products): the right operand is read once, past the cache, and
// every element of it meets all ROWS rows. One warp owns COLUMNS columns (right contiguous along k), or a
// thread owns WIDTH neighbouring columns and the warps of a block share k (right contiguous along n).
//
// SLOTS as in contract_plain; ROWS is at least rows().

// Right operand contiguous along k: lanes share k, eight at a time when `right_async` (aligned) holds.
template <int ROWS, int COLUMNS, int WARPS, class SLOTS> DEVICE void contract_stream_k(const SLOTS &s) {
  typedef typename SLOTS::Sum Sum;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const i64 tiles_n = ceil_div(s.columns(), COLUMNS * WARPS);
  const i64 g = index_div((i64)blockIdx.x, tiles_n);
  const i64 n0 = (index_mod((i64)blockIdx.x, tiles_n) * WARPS + warp) * COLUMNS;
  if (g >= s.groups() || n0 >= s.columns()) return;
  Sum acc[ROWS][COLUMNS];
#pragma unroll
  for (int m = 0; m < ROWS; m++)
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) acc[m][c] = Sum(0);
  constexpr int WIDTH = SLOTS::right_width;
  for (i64 k0 = lane * WIDTH; k0 < s.depth(); k0 += 32 * WIDTH) {
    Sum right[COLUMNS][WIDTH];
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      const auto row = s.right_row(g, minimum(n0 + c, s.columns() - 1));
      s.right_run(row, s.right_step(k0), right[c]);
    }
#pragma unroll
    for (int m = 0; m < ROWS; m++) {
      if (m >= s.rows()) break;
      const auto row = s.left_row(g, (i64)m);
#pragma unroll
      for (int e = 0; e < WIDTH; e++) {
        const Sum left = (Sum)s.left(row, s.left_step(k0 + e));
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) acc[m][c] = multiply_add(left, right[c][e], acc[m][c]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < ROWS; m++) {
    if (m >= s.rows()) break;
    Sum run[COLUMNS];
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) run[c] = fold_lanes<32>(acc[m][c], sum_of());
    if (lane == 0) s.template store<COLUMNS>(g, (i64)m, n0, run, (int)minimum(s.columns() - n0, (i64)COLUMNS));
  }
}

// Right operand contiguous along n: lanes have neighbouring columns, warps share k and add up in warp order.
template <int ROWS, int WARPS, class SLOTS> DEVICE void contract_stream_n(const SLOTS &s) {
  typedef typename SLOTS::Sum Sum;
  constexpr int WIDTH = SLOTS::right_width, SPAN = 32 * WIDTH;
  __shared__ Sum room[WARPS][SPAN];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const i64 tiles_n = ceil_div(s.columns(), SPAN);
  const i64 g = index_div((i64)blockIdx.x, tiles_n), n = index_mod((i64)blockIdx.x, tiles_n) * SPAN + lane * WIDTH;
  if (g >= s.groups()) return;
  Sum acc[ROWS][WIDTH];
#pragma unroll
  for (int m = 0; m < ROWS; m++)
#pragma unroll
    for (int e = 0; e < WIDTH; e++) acc[m][e] = Sum(0);
  if (n < s.columns()) {
    const auto column = s.right_row(g, n);
#pragma unroll 4
    for (i64 k = warp; k < s.depth(); k += WARPS) {
      Sum right[WIDTH];
      s.right_run(column, s.right_step(k), right);
      const auto step = s.left_step(k);
#pragma unroll
      for (int m = 0; m < ROWS; m++) {
        if (m >= s.rows()) break;
        const Sum left = (Sum)s.left(s.left_row(g, (i64)m), step);
#pragma unroll
        for (int e = 0; e < WIDTH; e++) acc[m][e] = multiply_add(left, right[e], acc[m][e]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < ROWS; m++) {
    if (m >= s.rows()) break;
    __syncthreads();
#pragma unroll
    for (int e = 0; e < WIDTH; e++) room[warp][lane * WIDTH + e] = acc[m][e];
    __syncthreads();
    for (int c = threadIdx.x; c < SPAN; c += WARPS * 32) {
      const i64 column = index_mod((i64)blockIdx.x, tiles_n) * SPAN + c;
      if (column >= s.columns()) continue;
      Sum total[1] = {room[0][c]};
#pragma unroll
      for (int w = 1; w < WARPS; w++) total[0] += room[w][c];
      s.template store<1>(g, (i64)m, column, total, 1);
    }
  }
}
