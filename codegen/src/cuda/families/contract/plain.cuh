// Contraction on plain cores for any element type: out[g, m, n] = sum over k of left(g, m, k) right(g, k, n).
// One block computes M x N of one group; a thread holds PER_M x PER_N sums, rows and columns interleaved so
// that neighbouring threads read neighbouring words of the two shared tiles.
//
// SLOTS provides: Left, Right, Sum (types); groups(), rows(), columns(), depth(); left_along_k, right_along_k;
// LeftRow left_row(g, m), LeftStep left_step(k), left(row, step), and the same for right; store(g, m, n, acc[], count).
// TILE provides M, N, K, PER_M, PER_N, SPLITS.

// Brings this thread's part of an operand tile from memory to registers and from there to shared memory.
// LINES x DEPTH elements; neighbouring threads walk k when ALONG_K, the line otherwise.
template <int LINES, int DEPTH, int THREADS, bool ALONG_K> struct tile_part {
  static const int COUNT = LINES * DEPTH / THREADS;
  DEVICE static int line(int i) { return ALONG_K ? (threadIdx.x + i * THREADS) / DEPTH : (threadIdx.x + i * THREADS) % LINES; }
  DEVICE static int step(int i) { return ALONG_K ? (threadIdx.x + i * THREADS) % DEPTH : (threadIdx.x + i * THREADS) / LINES; }
};

template <class TILE, class SLOTS> DEVICE void contract_plain(const SLOTS &s, typename SLOTS::Sum *partial, u32 *tickets) {
  typedef typename SLOTS::Sum Sum;
  constexpr int BM = TILE::M, BN = TILE::N, BK = TILE::K, PM = TILE::PER_M, PN = TILE::PER_N;
  constexpr int ACROSS = BN / PN, THREADS = BM / PM * ACROSS;
  constexpr int PAD = sizeof(Sum) <= 4 ? 4 : 2;
  typedef tile_part<BM, BK, THREADS, SLOTS::left_along_k> LEFT;
  typedef tile_part<BN, BK, THREADS, SLOTS::right_along_k> RIGHT;
  static_assert(BM * BK % THREADS == 0 && BN * BK % THREADS == 0, "every thread brings the same number of elements");
  __shared__ __align__(16) Sum left_tile[BK][BM + PAD];
  __shared__ __align__(16) Sum right_tile[BK][BN + PAD];

  const i64 tiles_m = ceil_div(s.rows(), BM), tiles_n = ceil_div(s.columns(), BN), tiles = tiles_m * tiles_n;
  const i64 unit = blockIdx.x;
  if (unit >= tiles * s.groups() * TILE::SPLITS) return;
  const i64 split = unit % TILE::SPLITS, place = unit / TILE::SPLITS, g = index_div(place, tiles), flat = place - g * tiles;
  const i64 m0 = index_div(flat, tiles_n) * BM, n0 = index_mod(flat, tiles_n) * BN;
  const i64 k_tiles = ceil_div(s.depth(), BK), per_split = ceil_div(k_tiles, TILE::SPLITS);
  const i64 k_first = split * per_split, k_last = minimum(k_tiles, k_first + per_split);
  const int ty = threadIdx.x / ACROSS, tx = threadIdx.x % ACROSS;

  Sum acc[PM][PN];
#pragma unroll
  for (int i = 0; i < PM; i++)
#pragma unroll
    for (int j = 0; j < PN; j++) acc[i][j] = Sum(0);

  Sum left_part[LEFT::COUNT], right_part[RIGHT::COUNT];
  auto bring = [&](i64 k_tile) {
    const i64 k0 = k_tile * BK;
#pragma unroll
    for (int i = 0; i < LEFT::COUNT; i++) {
      const i64 m = m0 + LEFT::line(i), k = k0 + LEFT::step(i);
      left_part[i] = m < s.rows() && k < s.depth() ? (Sum)s.left(s.left_row(g, m), s.left_step(k)) : Sum(0);
    }
#pragma unroll
    for (int i = 0; i < RIGHT::COUNT; i++) {
      const i64 n = n0 + RIGHT::line(i), k = k0 + RIGHT::step(i);
      right_part[i] = n < s.columns() && k < s.depth() ? (Sum)s.right(s.right_row(g, n), s.right_step(k)) : Sum(0);
    }
  };
  if (k_first < k_last) bring(k_first);
#pragma unroll 1
  for (i64 k_tile = k_first; k_tile < k_last; k_tile++) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < LEFT::COUNT; i++) left_tile[LEFT::step(i)][LEFT::line(i)] = left_part[i];
#pragma unroll
    for (int i = 0; i < RIGHT::COUNT; i++) right_tile[RIGHT::step(i)][RIGHT::line(i)] = right_part[i];
    __syncthreads();
    if (k_tile + 1 < k_last) bring(k_tile + 1);
#pragma unroll
    for (int k = 0; k < BK; k++) {
      Sum a[PM], b[PN];
#pragma unroll
      for (int i = 0; i < PM; i++) a[i] = left_tile[k][i / 4 * (BM / PM * 4) % BM + ty * (PM < 4 ? PM : 4) + i % 4];
#pragma unroll
      for (int j = 0; j < PN; j++) b[j] = right_tile[k][j / 4 * (BN / PN * 4) % BN + tx * (PN < 4 ? PN : 4) + j % 4];
#pragma unroll
      for (int i = 0; i < PM; i++)
#pragma unroll
        for (int j = 0; j < PN; j++) acc[i][j] = multiply_add(a[i], b[j], acc[i][j]);
    }
  }

  constexpr int RUN = PN < 4 ? PN : 4;
#pragma unroll
  for (int i = 0; i < PM; i++) {
    const i64 m = m0 + i / 4 * (BM / PM * 4) % BM + ty * (PM < 4 ? PM : 4) + i % 4;
#pragma unroll
    for (int j = 0; j < PN; j += RUN) {
      const i64 n = n0 + j / 4 * (BN / PN * 4) % BN + tx * RUN;
      if (m >= s.rows() || n >= s.columns()) continue;
      const int count = (int)minimum(s.columns() - n, (i64)RUN);
      if constexpr (TILE::SPLITS == 1) {
        Sum run[RUN];
#pragma unroll
        for (int e = 0; e < RUN; e++) run[e] = acc[i][j + e];
        s.template store<RUN>(g, m, n, run, count);
      } else {
#pragma unroll
        for (int e = 0; e < RUN; e++)
          if (e < count) partial[((split * s.groups() + g) * s.rows() + m) * s.columns() + n + e] = acc[i][j + e];
      }
    }
  }
  if constexpr (TILE::SPLITS > 1) {
    // The last block of a tile adds the partial sums in split order.
    if (!is_last_block(tickets + place, TILE::SPLITS)) return;
#pragma unroll 1
    for (int q = threadIdx.x; q < BM * BN; q += THREADS) {
      const i64 m = m0 + q / BN, n = n0 + q % BN;
      if (m >= s.rows() || n >= s.columns()) continue;
      Sum total[1] = {Sum(0)};
      for (int part = 0; part < TILE::SPLITS; part++) total[0] += __ldcg(partial + ((part * s.groups() + g) * s.rows() + m) * s.columns() + n);
      s.template store<1>(g, m, n, total, 1);
    }
  }
}
