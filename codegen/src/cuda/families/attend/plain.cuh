// Attention on plain cores for any element type and head size: one warp per query row, 32 keys at a time.
//   s[n] = score(query(g, m) . key(g, n)),  p = softmax over n,  out[e] = sum over n of weight(p[n]) value(g, n, e)
// With an identity weight one pass suffices (online softmax); otherwise a first pass finds the largest score
// and the sum, and a second weighs normalised probabilities.
//
// SLOTS provides: Sum; groups(), queries(), keys(), depth(), width(); weighs (the weight is not the identity);
// query/key/value operands with row and step; score(g, m, n, raw); weight(g, m, n, p); last_key(a, b): one past
// the last key that rows a to b need; store(g, m, e, acc[], count). WIDTH elements of the result belong to a lane.

template <int WIDTH, int WARPS, class SLOTS> DEVICE void attend_plain(const SLOTS &s) {
  typedef typename SLOTS::Sum Sum;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const i64 row = (i64)blockIdx.x * WARPS + warp, e0 = (i64)blockIdx.y * 32 * WIDTH + lane;
  if (row >= s.groups() * s.queries()) return;
  const i64 g = index_div(row, s.queries()), m = row - g * s.queries();
  const auto query_row = s.query_row(g, m);
  const i64 keys = minimum(s.keys(), s.last_key(m, m));
  const Sum empty = -highest<Sum>();

  auto score_of = [&](i64 n) {
    if (n >= keys) return empty;
    const auto key_row = s.key_row(g, n);
    Sum raw = Sum(0);
    for (i64 d = 0; d < s.depth(); d++) raw = multiply_add((Sum)s.query(query_row, s.query_step(d)), (Sum)s.key(key_row, s.key_step(d)), raw);
    return (Sum)s.score(g, m, n, raw);
  };
  // exp(score - top), zero where nothing was seen yet and the row may still find a finite score.
  auto relative = [&](Sum score, Sum top) { return top == empty ? Sum(0) : (Sum)op::exp(score - top); };

  Sum top = empty, total = Sum(0), acc[WIDTH];
#pragma unroll
  for (int i = 0; i < WIDTH; i++) acc[i] = Sum(0);
  auto gather = [&](i64 n0, Sum weight) {
    for (int k = 0; k < 32 && n0 + k < keys; k++) {
      const Sum w = shuffle_from(weight, k);
      const auto value_row = s.value_row(g, n0 + k);
#pragma unroll
      for (int i = 0; i < WIDTH; i++)
        if (e0 + 32 * i < s.width()) acc[i] = multiply_add(w, (Sum)s.value(value_row, s.value_step(e0 + 32 * i)), acc[i]);
    }
  };
  for (i64 n0 = 0; n0 < keys; n0 += 32) {
    const Sum score = score_of(n0 + lane);
    const Sum higher = maximum(top, fold_lanes<32>(score, maximum_of()));
    const Sum shrink = relative(top, higher), p = n0 + lane < keys ? relative(score, higher) : Sum(0);
    total = total * shrink + fold_lanes<32>(p, sum_of());
    top = higher;
    if constexpr (!SLOTS::weighs) {
#pragma unroll
      for (int i = 0; i < WIDTH; i++) acc[i] *= shrink;
      gather(n0, p);
    }
  }
  if constexpr (SLOTS::weighs) {
    for (i64 n0 = 0; n0 < keys; n0 += 32) {
      const i64 n = n0 + lane;
      const Sum p = n < keys ? relative(score_of(n), top) / total : Sum(0);
      gather(n0, n < keys ? (Sum)s.weight(g, m, n, p) : Sum(0));
    }
  }
#pragma unroll
  for (int i = 0; i < WIDTH; i++) {
    const i64 e = e0 + 32 * i;
    // A row without keys sums nothing; a row whose scores are all -inf has no probabilities (0 / 0).
    const Sum out[1] = {SLOTS::weighs || s.keys() == 0 ? acc[i] : acc[i] / total};
    if (e < s.width()) s.template store<1>(g, m, e, out, 1);
  }
}
