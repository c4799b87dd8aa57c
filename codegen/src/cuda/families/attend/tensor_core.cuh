// Attention of half-precision operands on tensor cores: a block has BQ = 16 WARPS query rows of one group and
// walks tiles of BKV keys, two tiles in flight. Slots as in attend_plain, with Element and, per operand,
// *_async and *_address; DEPTH and WIDTH are the head sizes rounded up to 16, PITCH_D and PITCH_W
// up to powers of two. The weight is the identity
// unless SLOTS::weighs; then a first walk over the keys finds the largest scores and sums.

template <int DEPTH, int WIDTH, int WARPS, int BKV, int PITCH_D, int PITCH_W, class SLOTS> DEVICE void attend_tensor_core(const SLOTS &s) {
  typedef typename SLOTS::Element T;
  constexpr int BQ = WARPS * 16, THREADS = WARPS * 32;
  constexpr u32 QUERY_BYTES = BQ * PITCH_D * 2, KEY_BYTES = BKV * PITCH_D * 2, VALUE_BYTES = BKV * PITCH_W * 2;
  extern __shared__ __align__(128) char shared[];
  const u32 query_tile = shared_address(shared), key_tiles = query_tile + QUERY_BYTES, value_tiles = key_tiles + 2 * KEY_BYTES;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const i64 tiles = ceil_div(s.queries(), BQ);
  const i64 g = index_div((i64)blockIdx.x, tiles), m0 = ((i64)blockIdx.x - g * tiles) * BQ;
  if (g >= s.groups()) return;
  const i64 keys = minimum(s.keys(), s.last_key(m0, minimum(m0 + BQ, s.queries()) - 1));
  const i64 key_tile_count = ceil_div(keys, BKV);
  const float empty = -INFINITY_F;

  fill_tile<SLOTS::query_async, BQ, DEPTH, PITCH_D, THREADS, T>(
      query_tile,
      [&](int y, int x) { if constexpr (SLOTS::query_async) return s.query_address(s.query_row(g, minimum(m0 + y, s.queries() - 1)), s.query_step(minimum((i64)x, s.depth() - 1))); else return (const T *)nullptr; },
      [&](int y, int x) { return s.query(s.query_row(g, m0 + y), s.query_step(x)); },
      [&](int y, int x) { return m0 + y < s.queries() && x < s.depth(); });
  auto fill_keys = [&](i64 tile) {
    const i64 n0 = tile * BKV;
    fill_tile<SLOTS::key_async, BKV, DEPTH, PITCH_D, THREADS, T>(
        key_tiles + (tile & 1) * KEY_BYTES,
        [&](int y, int x) { if constexpr (SLOTS::key_async) return s.key_address(s.key_row(g, minimum(n0 + y, s.keys() - 1)), s.key_step(minimum((i64)x, s.depth() - 1))); else return (const T *)nullptr; },
        [&](int y, int x) { return s.key(s.key_row(g, n0 + y), s.key_step(x)); },
        [&](int y, int x) { return n0 + y < keys && x < s.depth(); });
  };
  auto fill_values = [&](i64 tile) {
    const i64 n0 = tile * BKV;
    fill_tile<SLOTS::value_async, BKV, WIDTH, PITCH_W, THREADS, T>(
        value_tiles + (tile & 1) * VALUE_BYTES,
        [&](int y, int x) { if constexpr (SLOTS::value_async) return s.value_address(s.value_row(g, minimum(n0 + y, s.keys() - 1)), s.value_step(minimum((i64)x, s.width() - 1))); else return (const T *)nullptr; },
        [&](int y, int x) { return s.value(s.value_row(g, n0 + y), s.value_step(x)); },
        [&](int y, int x) { return n0 + y < keys && x < s.width(); });
  };

  float scores[BKV / 8][4];
  const i64 m_first = m0 + warp * 16 + (lane >> 2);
  // Scores of one tile: products, then the score slot; keys that are not there score -inf.
  auto score_tile = [&](i64 tile) {
#pragma unroll
    for (int i = 0; i < BKV / 8; i++) scores[i][0] = scores[i][1] = scores[i][2] = scores[i][3] = 0.0f;
    const u32 keys_at = key_tiles + (tile & 1) * KEY_BYTES;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
      u32 a[4];
      load_matrices(a, query_tile + swizzle<PITCH_D / 8>(warp * 16 + (lane & 15), k / 8 + (lane >> 4)));
#pragma unroll
      for (int n = 0; n < BKV; n += 16) {
        u32 b[4];
        load_matrices(b, keys_at + swizzle<PITCH_D / 8>(n + (lane & 7) + (lane >> 4) * 8, k / 8 + ((lane >> 3) & 1)));
        mma_16816(T(), scores[n / 8], a, b[0], b[1]);
        mma_16816(T(), scores[n / 8 + 1], a, b[2], b[3]);
      }
    }
#pragma unroll
    for (int i = 0; i < BKV / 8; i++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const i64 m = m_first + (e >> 1) * 8, n = tile * BKV + i * 8 + (lane & 3) * 2 + (e & 1);
        scores[i][e] = n < keys && m < s.queries() ? s.score(g, m, n, scores[i][e]) : empty;
      }
  };

  float top[2] = {empty, empty}, total[2] = {0.0f, 0.0f}, out[WIDTH / 8][4];
#pragma unroll
  for (int i = 0; i < WIDTH / 8; i++) out[i][0] = out[i][1] = out[i][2] = out[i][3] = 0.0f;
  auto relative = [&](float score, float largest) { return largest == empty ? 0.0f : op::exp(score - largest); };
  // Takes the scores of a tile into the running largest and sum; leaves exp(score - largest) in place.
  auto soften = [&](bool rescale) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float higher = top[h];
#pragma unroll
      for (int i = 0; i < BKV / 8; i++) higher = maximum(higher, maximum(scores[i][2 * h], scores[i][2 * h + 1]));
      higher = maximum(higher, shuffle_xor(higher, 1));
      higher = maximum(higher, shuffle_xor(higher, 2));
      const float shrink = relative(top[h], higher);
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < BKV / 8; i++)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; e++) {
          scores[i][e] = relative(scores[i][e], higher);
          sum += scores[i][e];
        }
      total[h] = total[h] * shrink + sum;
      top[h] = higher;
      if (rescale)
#pragma unroll
        for (int i = 0; i < WIDTH / 8; i++) {
          out[i][2 * h] *= shrink;
          out[i][2 * h + 1] *= shrink;
        }
    }
  };
  auto gather = [&](i64 tile) {
    const u32 values_at = value_tiles + (tile & 1) * VALUE_BYTES;
#pragma unroll
    for (int k = 0; k < BKV / 16; k++) {
      const u32 p[4] = {pack_halves(T(), scores[2 * k][0], scores[2 * k][1]), pack_halves(T(), scores[2 * k][2], scores[2 * k][3]),
                        pack_halves(T(), scores[2 * k + 1][0], scores[2 * k + 1][1]), pack_halves(T(), scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < WIDTH; n += 16) {
        u32 b[4];
        load_matrices_transposed(b, values_at + swizzle<PITCH_W / 8>(k * 16 + (lane & 15), n / 8 + (lane >> 4)));
        mma_16816(T(), out[n / 8], p, b[0], b[1]);
        mma_16816(T(), out[n / 8 + 1], p, b[2], b[3]);
      }
    }
  };
  auto full_total = [&](int h) {
    float sum = total[h];
    sum += shuffle_xor(sum, 1);
    return sum + shuffle_xor(sum, 2);
  };

  if constexpr (SLOTS::weighs) {
    for (i64 tile = 0; tile < key_tile_count; tile++) {
      fill_keys(tile);
      copy_commit();
      copy_wait<0>();
      __syncthreads();
      score_tile(tile);
      soften(false);
      __syncthreads();
    }
    total[0] = full_total(0);
    total[1] = full_total(1);
  }
  if (key_tile_count > 0) {
    fill_keys(0);
    copy_commit();
    fill_values(0);
    copy_commit();
  }
#pragma unroll 1
  for (i64 tile = 0; tile < key_tile_count; tile++) {
    if (tile + 1 < key_tile_count) {
      fill_keys(tile + 1);
      copy_commit();
      fill_values(tile + 1);
      copy_commit();
      copy_wait<2>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    score_tile(tile);
    if constexpr (SLOTS::weighs) {
#pragma unroll
      for (int i = 0; i < BKV / 8; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const i64 m = m_first + (e >> 1) * 8, n = tile * BKV + i * 8 + (lane & 3) * 2 + (e & 1);
          const float p = relative(scores[i][e], top[e >> 1]) / total[e >> 1];
          scores[i][e] = n < keys && m < s.queries() ? s.weight(g, m, n, p) : 0.0f;
        }
    } else {
      soften(true);
    }
    gather(tile);
    __syncthreads();
  }

#pragma unroll
  for (int h = 0; h < 2; h++) {
    const i64 m = m_first + h * 8;
    const float scale = SLOTS::weighs || s.keys() == 0 ? 1.0f : 1.0f / full_total(h);
    if (m >= s.queries()) continue;
#pragma unroll
    for (int i = 0; i < WIDTH / 8; i++) {
      const i64 e = i * 8 + (lane & 3) * 2;
      const float pair[2] = {out[i][2 * h] * scale, out[i][2 * h + 1] * scale};
      if (e < s.width()) s.template store<2>(g, m, e, pair, (int)minimum(s.width() - e, (i64)2));
    }
  }
}
