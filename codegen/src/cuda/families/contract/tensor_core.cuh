// Contraction of half-precision operands on tensor cores: out[g, m, n] = sum over k of left(g, m, k) right(g, k, n),
// accumulated in float. One block computes TILE_M x TILE_N of one group g with a ring of STAGES shared tiles
// filled by cp.async (operands proven aligned) or through registers (any other operand, prologues included).
//
// SLOTS provides: Element; groups(), rows(), columns(), depth(); left_along_k, right_along_k (which axis of the
// operand is contiguous); left_async, right_async; left_row(g, m), left_step(k), left(row, step), left_address(row,
// step), the same for right with columns for rows; store(g, m, n, acc[8], count).
// TILE provides M, N, K, WARP_M, WARP_N, STAGES, SPLITS as constants.

template <class TILE> struct tile_shape {
  static const int WARPS_M = TILE::M / TILE::WARP_M, WARPS_N = TILE::N / TILE::WARP_N;
  static const int THREADS = WARPS_M * WARPS_N * 32;
};

template <class TILE, class SLOTS> DEVICE void contract_tensor_core(const SLOTS &s, float *partial, u32 *tickets) {
  typedef typename SLOTS::Element T;
  typedef tile_shape<TILE> SHAPE;
  constexpr int BM = TILE::M, BN = TILE::N, BK = TILE::K, STAGES = TILE::STAGES, THREADS = SHAPE::THREADS;
  constexpr int MI = TILE::WARP_M / 16, NI = TILE::WARP_N / 8;
  constexpr u32 LEFT_BYTES = BM * BK * 2, STAGE_BYTES = (BM + BN) * BK * 2;
  extern __shared__ __align__(128) char shared[];
  const u32 ring = shared_address(shared);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int warp_m = warp % SHAPE::WARPS_M * TILE::WARP_M, warp_n = warp / SHAPE::WARPS_M * TILE::WARP_N;

  // Blocks walk eight rows of tiles at a time, so that neighbours share operands in the second-level cache.
  const i64 tiles_m = ceil_div(s.rows(), BM), tiles_n = ceil_div(s.columns(), BN);
  const i64 tiles = tiles_m * tiles_n;
  const i64 unit = blockIdx.x;
  if (unit >= tiles * s.groups() * TILE::SPLITS) return;
  const i64 split = unit % TILE::SPLITS, place = unit / TILE::SPLITS, g = index_div(place, tiles), flat = place - g * tiles;
  const i64 band = index_div(flat, 8 * tiles_n), height = minimum(tiles_m - band * 8, (i64)8), within = flat - band * 8 * tiles_n;
  const i64 m0 = (band * 8 + index_mod(within, height)) * BM, n0 = index_div(within, height) * BN;

  // Each split takes a run of whole k tiles that depends on the depth alone.
  const i64 k_tiles = ceil_div(s.depth(), BK), per_split = ceil_div(k_tiles, TILE::SPLITS);
  const i64 k_first = split * per_split, k_last = minimum(k_tiles, k_first + per_split);

  float acc[MI][NI][4];
#pragma unroll
  for (int i = 0; i < MI; i++)
#pragma unroll
    for (int j = 0; j < NI; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) acc[i][j][e] = 0.0f;

  auto fill = [&](int slot, i64 k_tile) {
    const i64 k0 = k_tile * BK;
    const u32 left_tile = ring + slot * STAGE_BYTES, right_tile = left_tile + LEFT_BYTES;
    // In both orders (line, place in the run) is (y, x); the two are m and k, or k and m.
    auto left_m = [&](int y, int x) { return m0 + (SLOTS::left_along_k ? y : x); };
    auto left_k = [&](int y, int x) { return k0 + (SLOTS::left_along_k ? x : y); };
    auto right_n = [&](int y, int x) { return n0 + (SLOTS::right_along_k ? y : x); };
    auto right_k = [&](int y, int x) { return k0 + (SLOTS::right_along_k ? x : y); };
    fill_tile<SLOTS::left_async, SLOTS::left_along_k ? BM : BK, SLOTS::left_along_k ? BK : BM, SLOTS::left_along_k ? BK : BM, THREADS, T>(
        left_tile,
        [&](int y, int x) { const i64 m = minimum(left_m(y, x), s.rows() - 1), k = minimum(left_k(y, x), s.depth() - 1); if constexpr (SLOTS::left_async) return s.left_address(s.left_row(g, m), s.left_step(k)); else return (const T *)nullptr; },
        [&](int y, int x) { return s.left(s.left_row(g, left_m(y, x)), s.left_step(left_k(y, x))); },
        [&](int y, int x) { return left_m(y, x) < s.rows() && left_k(y, x) < s.depth() && (!SLOTS::left_async || s.left_inside(s.left_row(g, left_m(y, x)), s.left_step(left_k(y, x)))); });
    fill_tile<SLOTS::right_async, SLOTS::right_along_k ? BN : BK, SLOTS::right_along_k ? BK : BN, SLOTS::right_along_k ? BK : BN, THREADS, T>(
        right_tile,
        [&](int y, int x) { const i64 n = minimum(right_n(y, x), s.columns() - 1), k = minimum(right_k(y, x), s.depth() - 1); if constexpr (SLOTS::right_async) return s.right_address(s.right_row(g, n), s.right_step(k)); else return (const T *)nullptr; },
        [&](int y, int x) { return s.right(s.right_row(g, right_n(y, x)), s.right_step(right_k(y, x))); },
        [&](int y, int x) { return right_n(y, x) < s.columns() && right_k(y, x) < s.depth() && (!SLOTS::right_async || s.right_inside(s.right_row(g, right_n(y, x)), s.right_step(right_k(y, x)))); });
  };

#pragma unroll
  for (int slot = 0; slot < STAGES - 1; slot++) {
    if (k_first + slot < k_last) fill(slot, k_first + slot);
    copy_commit();
  }
  int slot = 0;
#pragma unroll 1
  for (i64 k_tile = k_first; k_tile < k_last; k_tile++) {
    copy_wait<STAGES - 2>();
    __syncthreads();
    const int free_slot = slot == 0 ? STAGES - 1 : slot - 1;
    if (k_tile + STAGES - 1 < k_last) fill(free_slot, k_tile + STAGES - 1);
    copy_commit();
    const u32 left_tile = ring + slot * STAGE_BYTES, right_tile = left_tile + LEFT_BYTES;
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
      u32 a[MI][4], b[NI / 2][4];
#pragma unroll
      for (int i = 0; i < MI; i++) {
        const int m = warp_m + i * 16;
        if constexpr (SLOTS::left_along_k) load_matrices(a[i], left_tile + swizzle<BK / 8>(m + (lane & 15), k / 8 + (lane >> 4)));
        else load_matrices_transposed(a[i], left_tile + swizzle<BM / 8>(k + (lane & 7) + (lane >> 4) * 8, m / 8 + ((lane >> 3) & 1)));
      }
#pragma unroll
      for (int j = 0; j < NI / 2; j++) {
        const int n = warp_n + j * 16;
        if constexpr (SLOTS::right_along_k) load_matrices(b[j], right_tile + swizzle<BK / 8>(n + (lane & 7) + (lane >> 4) * 8, k / 8 + ((lane >> 3) & 1)));
        else load_matrices_transposed(b[j], right_tile + swizzle<BN / 8>(k + (lane & 15), n / 8 + (lane >> 4)));
      }
#pragma unroll
      for (int i = 0; i < MI; i++)
#pragma unroll
        for (int j = 0; j < NI; j++) mma_16816(T(), acc[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
    slot = slot == STAGES - 1 ? 0 : slot + 1;
  }

  // The accumulators go through the free ring, 16 rows of every warp row at a time, so that a rolled loop sees
  // eight neighbouring columns of one row.
  float *const stage = (float *)shared;
  constexpr int LINE = BN + 4, STAGED = SHAPE::WARPS_M * 16;
#pragma unroll
  for (int i = 0; i < MI; i++) {
    copy_wait<0>();
    __syncthreads();
    const int r = warp_m / TILE::WARP_M * 16 + (lane >> 2);
#pragma unroll
    for (int j = 0; j < NI; j++) {
      const int c = warp_n + j * 8 + (lane & 3) * 2;
      *(float2 *)(stage + r * LINE + c) = make_float2(acc[i][j][0], acc[i][j][1]);
      *(float2 *)(stage + (r + 8) * LINE + c) = make_float2(acc[i][j][2], acc[i][j][3]);
    }
    __syncthreads();
#pragma unroll 1
    for (int q = threadIdx.x; q < STAGED * (BN / 8); q += THREADS) {
      const int y = q / (BN / 8), x = q % (BN / 8) * 8;
      const i64 m = m0 + y / 16 * TILE::WARP_M + i * 16 + y % 16, n = n0 + x;
      if (m >= s.rows() || n >= s.columns()) continue;
      const float4 low = *(const float4 *)(stage + y * LINE + x), high = *(const float4 *)(stage + y * LINE + x + 4);
      float values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      const int count = (int)minimum(s.columns() - n, (i64)8);
      if constexpr (TILE::SPLITS == 1) s.store(g, m, n, values, count);
      else
#pragma unroll
        for (int e = 0; e < 8; e++)
          if (e < count) partial[((split * s.groups() + g) * s.rows() + m) * s.columns() + n + e] = values[e];
    }
  }
  if constexpr (TILE::SPLITS > 1) {
    // The last block of a tile adds the partial sums in split order.
    if (!is_last_block(tickets + place, TILE::SPLITS)) return;
#pragma unroll 1
    for (int q = threadIdx.x; q < BM * (BN / 8); q += THREADS) {
      const i64 m = m0 + q / (BN / 8), n = n0 + q % (BN / 8) * 8;
      if (m >= s.rows() || n >= s.columns()) continue;
      const int count = (int)minimum(s.columns() - n, (i64)8);
      float values[8] = {};
      for (int part = 0; part < TILE::SPLITS; part++)
#pragma unroll
        for (int e = 0; e < 8; e++)
          if (e < count) values[e] += __ldcg(partial + ((part * s.groups() + g) * s.rows() + m) * s.columns() + n + e);
      s.store(g, m, n, values, count);
    }
  }
}
