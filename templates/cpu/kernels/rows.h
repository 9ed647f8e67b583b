#pragma once
#include <algorithm>

#include "query_tiles.h"

// ---- Rows: what each query needs beside its tile, before the key tiles, and its dq, after them.
// Of rows first .. stop: the LSE in base 2 (+inf for an empty row, so that its weights are 0), and delta = grad_out.out
// - grad_lse, what every gradient of a score has subtracted. Both are +inf for a silent row (see `is_silent`).
void prepare(const sparsec_backward_call& call, int64_t b, int64_t h, int64_t first, int64_t stop, float* lse,
             float* delta) {
  const Matrix grad = matrix(call.grad_out, call.grad_out_stride, b, h, 0),
               out = matrix(call.out, call.out_stride, b, h, 0);
  const float* from = call.lse + b * call.lse_stride[0] + h * call.lse_stride[1];
  constexpr int WIDTH = whole_vectors(DV);
  for (int64_t n = first; n < stop; ++n) {
    alignas(64) float x[WIDTH] = {}, y[WIDTH] = {};
    load_rows<DV>(grad, n, 1, x);
    load_rows<DV>(out, n, 1, y);
    vec sum = {};
    for (int d = 0; d < WIDTH; d += LANES) sum += load(x + d) * load(y + d);
    float total = 0.0f;
    for (int lane = 0; lane < LANES; ++lane) total += sum[lane];
    const float value = from[n * call.lse_stride[2]] * LOG2E;
    lse[n] = value == -INF ? INF : value;
    const float of_lse =
        call.grad_lse == nullptr
            ? 0.0f
            : call.grad_lse[b * call.grad_lse_stride[0] + h * call.grad_lse_stride[1] + n * call.grad_lse_stride[2]];
    delta[n] = total - of_lse;
    if (total != total && of_lse == 0.0f && std::all_of(x, x + WIDTH, [](float each) { return each == 0.0f; }))
      lse[n] = delta[n] = INF;
  }
}

// dq of rows first .. stop: what the tiles of keys have, if they touched it, and the rows' own keys, if there are any,
// times the scale. Rows are WIDE numbers, but D of dq.
void store_dq(const float* of_tiles, bool touched, const float* of_own, int64_t first, int64_t stop, float scale,
              element* dq) {
  for (int64_t n = first; n < stop; ++n) {
    float total[D] = {};
    if (touched)
      for (int d = 0; d < D; ++d) total[d] += of_tiles[n * WIDE + d];
    if (of_own)
      for (int d = 0; d < D; ++d) total[d] += of_own[n * WIDE + d];
    for (int d = 0; d < D; ++d) dq[n * D + d] = narrow(total[d] * scale);
  }
}
