// Fills one shared tile of LINES x RUN elements, RUN contiguous in memory, with eight elements per chunk;
// a line takes PITCH elements of shared memory, a power of two.
// The callers say what (line y, place x in the run) means.
template <bool ASYNC, int LINES, int RUN, int PITCH, int THREADS, class T, class ADDRESS, class VALUE, class INSIDE>
DEVICE void fill_tile(u32 tile, const ADDRESS &address, const VALUE &value, const INSIDE &inside) {
  const int CHUNKS = RUN / 8;
#pragma unroll
  for (int i = 0; i < (LINES * CHUNKS + THREADS - 1) / THREADS; i++) {
    const int c = threadIdx.x + i * THREADS, y = c / CHUNKS, x = c % CHUNKS * 8;
    if (LINES * CHUNKS % THREADS && c >= LINES * CHUNKS) break;
    const u32 place = tile + swizzle<PITCH / 8>(y, x / 8);
    if constexpr (ASYNC) {
      copy_async<16>(place, address(y, x), inside(y, x));
    } else {
      u32 words[4];
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const float low = inside(y, x + 2 * j) ? value(y, x + 2 * j) : 0.0f;
        const float high = inside(y, x + 2 * j + 1) ? value(y, x + 2 * j + 1) : 0.0f;
        words[j] = pack_halves(T(), low, high);
      }
      asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(place), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]) : "memory");
    }
  }
}
