#pragma once
#include <algorithm>
#include <cstdlib>

#include "panels.h"
#include "parts.h"

// ---- Tasks: every query tile of every head, the longest rows first; each is computed whole by one thread.
// Of TOGETHER heads from `head` on.
void run_task(Work& w, const sparsec_call& call, int64_t b, int64_t head, const Tile& tile) {
  const Part& part = tile.part;
  w.base = tile.base;
  w.i0 = maximum(w.base, part.q0);
  w.i1 = minimum(w.base + QUERY_TILE, part.q1) - 1;
  w.begin = part.begin, w.end = part.end, w.n_k = part.n_k;
  w.source = source_of(call, b, head, part.k_row);
  w.inputs = Inputs(call, b, part.q_row, part.k_row, part.n_k);
  gather_rows(w, call, b, head, part.q_row, part.k_row);
  for (int64_t h = head; h < head + TOGETHER; ++h) {
    w.modifiers = Modifiers(call, b, h, part.k_row);
    load_queries(w, matrix(call.q, call.q_stride, b, h, part.q_row), call.scale);
    resume(w, h - head);
    visit(w, call.lists, int(h));
    const int64_t r = w.i0 + part.q_row;
    element* out = (element*)call.out + b * call.out_stride[0] + h * call.out_stride[1] + r * call.out_stride[2];
    float* lse = call.lse + b * call.lse_stride[0] + h * call.lse_stride[1] + r * call.lse_stride[2];
    finish(w, out, call.out_stride[2], call.out_stride[3], lse, call.lse_stride[2]);
  }
}

int forward(const sparsec_call& call) {
  const Tiling<sparsec_call> tiling(call, QUERY_TILE, false);
  if (!tiling.before) return 1;
  const int64_t tiles = tiling.count(), heads = HEADS / TOGETHER, tasks = call.batch * heads * tiles;
  if (tasks == 0) return 0;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task)  // head by head, for their keys stay in the cache; last rows first
      if (w)
        run_task(*w, call, task / tiles / heads, task / tiles % heads * TOGETHER, tiling[tiles - 1 - task % tiles]);
    std::free(w);
  }
  return failed;
}
