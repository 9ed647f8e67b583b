// Sparse attention, the gradients of q, k and v.
//
// A key tile of one key head is laid across vector lanes and visits, for each query head of its group, the query tiles
// of the head's class in the order below: weights and the gradients of the scores are recomputed tile by tile; those of
// k and v add up beside the key tile, those of q in a float32 matrix. The key tiles of a key head are dealt out in
// shares, each a task with a matrix of its own, and the shares are summed in order: no atomics, the same bits whatever
// the number of threads.
...
#include <thread>
#include <type_traits>
#include <utility>

...

#ifndef SPARSEC_BACKWARD_CALL
#define SPARSEC_BACKWARD_CALL
struct sparsec_backward_call {  // strides in elements; shapes as in the forward call; dq, dk, dv are contiguous
  const void* grad_out;
  ...
  const void* out;
  const float* lse;
  const float* grad_lse;  // null for zeros
  void* dq;
  void* dk;
  void* dv;
  int64_t grad_out_stride[4];
  ...
  int64_t grad_lse_stride[3];
  ...
  float* dsink;  // [H], likewise
  float* dbias;  // [B, H, Nk], likewise; null: not asked for
...

namespace sparsec_gradients {
namespace {

...

constexpr int HEADS = 16, KV_HEADS = 8, D = 128, DV = 128;
constexpr int QUERY_TILE = 64, KEY_TILE = 64;
constexpr int LANE_TILE = KEY_TILE;  // lies across vector lanes

...
... cpu/kernels/products.h
... cpu/kernels/gradients.h
...

constexpr int CHUNK = 64;

... cpu/kernels/query_tiles.h
...
... cpu/kernels/key_tiles.h
... cpu/kernels/columns/no_backward.h
... cpu/kernels/gathers/no_backward.h
... cpu/kernels/rows.h
... cpu/kernels/shares.h
... cpu/kernels/backward.h
...
} MICRO_KERNEL = {"sparsec micro-kernel of backward", Operands::NAME};

// ---- Head classes: which query tiles the keys j0 .. j1 visit, in full or through a mask.
...
  [[maybe_unused]] const int j0 = w.j0, j1 = w.j1, nk = w.n_k, base = w.origin, begin = w.begin, end = w.end;
  static const int c0_of_head[HEADS] = {0, 0, 15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9};
  [[maybe_unused]] const int c0 = c0_of_head[head];
  const int lo0 = maximum(begin, j0 - base);
  const int hi0 = maximum(minimum(end, (j0 >> 6) * 64 + 1024 - base), 0);
  const int from0 = minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((end + 63) >> 6), (((j0 >> 6) * 64 + 1024 - base + 63) >> 6)), 0) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))));
  const int from1 = ((((c0 * 64 + 63 - j0) & 1023) < j1 - j0 + 64) ? minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6)) : 0);
  const int to1 = maximum(from1, ((((c0 * 64 + 63 - j0) & 1023) < j1 - j0 + 64) ? ((lo0 < end) ? ((end + 63) >> 6) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))) : 0));
  const int stop0 = maximum(from0, to0);
  const int start0 = maximum(from1, stop0);
  const int stop1 = maximum(start0, to1);
  const int lo1 = maximum(begin, j1 - base);
  const int sure_hi0 = maximum(lo1, hi0);
  const int sure_lo0 = ((((j0 - c0 * 64) & 1023) + (j1 - j0) < 64) ? lo1 : 0);
  const int sure_hi1 = ((((j0 - c0 * 64) & 1023) + (j1 - j0) < 64) ? maximum(lo1, end) : 0);
  const int full_from0 = maximum(((begin + 63) >> 6), ((j1 - base + 63) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum((begin >> 6), ((j1 - base) >> 6)), maximum(minimum((end >> 6), (((j0 >> 6) * 64 + 1024 - base) >> 6)), 0)));
  const int full_from1 = maximum(((((sure_lo0 < sure_hi0 + 1) ? lo1 : sure_lo0) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from1, maximum(maximum(maximum((begin >> 6), ((j1 - base) >> 6)), maximum(minimum((end >> 6), (((j0 >> 6) * 64 + 1024 - base) >> 6)), 0)), (sure_hi1 >> 6)));
  const int count0 = maximum(full_to0 - full_from0, 0);
  const int count1 = maximum(full_to1 - full_from1, 0);
  const int count2 = maximum(minimum(stop0, full_from0) - from0, 0);
  const int at0 = maximum(from0, full_to0);
  const int count3 = maximum(minimum(stop0, full_from1) - at0, 0);
  const int at1 = maximum(from0, full_to1);
  const int count4 = maximum(stop0 - at1, 0);
  const int count5 = maximum(minimum(stop1, full_from0) - start0, 0);
  const int at2 = maximum(start0, full_to0);
  const int count6 = maximum(minimum(stop1, full_from1) - at2, 0);
  const int at3 = maximum(start0, full_to1);
  const int count7 = maximum(stop1 - at3, 0);
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return (((j < i + 1) & (i < (j >> 6) * 64 + 1024)) | ((j < i + 1) & ((((j >> 6) - c0) & 15) < 1))); };
  ...
  for (int n = 0, count = count1; n < count; ++n) {
    const int tile = full_from1 + n;
  ...
  for (int n = 0, count = count2; n < count; ++n) {
  ...
  for (int n = 0, count = count3; n < count; ++n) {
  ...
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count4; n < count; ++n) {
    const int tile = at1 + n;
    attend_masked(w, tile, live);
  }
  // line 9: stride(16b) & line 7: causal
  for (int n = 0, count = count5; n < count; ++n) {
    const int tile = start0 + n;
    attend_masked(w, tile, live);
  }
  // line 9: stride(16b) & line 7: causal
  for (int n = 0, count = count6; n < count; ++n) {
    const int tile = at2 + n;
    attend_masked(w, tile, live);
  }
  // line 9: stride(16b) & line 7: causal
  for (int n = 0, count = count7; n < count; ++n) {
    const int tile = at3 + n;
    attend_masked(w, tile, live);
  }
}

...

}  // namespace
}  // namespace sparsec_gradients

// Returns 0, or 1 when memory ran out.
extern "C" int sparsec_backward(const sparsec_backward_call* call) { return sparsec_gradients::backward(*call); }
