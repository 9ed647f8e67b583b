#pragma once
#include <algorithm>
#include <cstdlib>

#include "paged_parts.h"
#include "panels.h"
#include "parts.h"

// ---- Tasks: every query tile of every head of every request that has more than few queries, the longest rows first.
// Of TOGETHER heads from `head` on.
void run_task(Work& w, const sparsec_paged_call& call, int64_t head, const Tile& tile) {
  const Part& part = tile.part;
  const int64_t r = tile.number;
  w.base = tile.base;
  w.i0 = maximum(w.base, part.q0);
  w.i1 = minimum(w.base + QUERY_TILE, part.q1) - 1;
  w.begin = part.begin, w.end = part.end, w.n_k = part.n_k;
  w.source = source_of(call, r, head, 0);
  w.inputs = Inputs(call, r, part.q_row, 0, part.n_k, part.q0);
  gather_rows(w, call, r, head, part.q_row, 0);
  for (int64_t h = head; h < head + TOGETHER; ++h) {
    w.modifiers = Modifiers(call, r, h, 0);
    load_queries(w, matrix(call.q, call.q_stride, 0, h, part.q_row), call.scale);
    resume(w, h - head);
    visit(w, call.lists, int(h));
    const int64_t at = (w.i0 + part.q_row) * HEADS + h;
    finish(w, (element*)call.out + at * DV, HEADS * DV, 1, call.lse + at, HEADS);
  }
}

int attend_chunks(const sparsec_paged_call& call) {
  if (!sound(call)) return 2;
  const Tiling<sparsec_paged_call> tiling(call, QUERY_TILE, false);
  if (!tiling.before) return 1;
  const int64_t tiles = tiling.count(), tasks = HEADS / TOGETHER * tiles;
  if (tasks == 0) return 0;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task)
      if (w) run_task(*w, call, task / tiles * TOGETHER, tiling[tiles - 1 - task % tiles]);
    std::free(w);
  }
  return failed;
}
