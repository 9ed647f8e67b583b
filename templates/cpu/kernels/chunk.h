#pragma once
#include <algorithm>
#include <cstdlib>

#include "cache.h"
#include "panels.h"

// ---- Tasks: every query tile of every head of every sequence, the longest rows first.
// The n-th query tile from the end, if the sequence has it; with the last one, the padding before its rows.
// Of TOGETHER heads from `head` on.
void run_task(Work& w, const sparsec_cached_call& call, int64_t b, int64_t head, int n) {
  const int length = call.lengths[b], stop = length + int(count_of(call, b));
  const int64_t first = call.n - stop;  // the row of position 0
  element* out = (element*)call.out + (b * HEADS + head) * call.n * DV;
  float* lse = call.lse + (b * HEADS + head) * call.n;
  for (int64_t h = 0; h < TOGETHER && n == 0; ++h) {
    std::fill(out + h * call.n * DV, out + (h * call.n + first + length) * DV, element(0));
    std::fill(lse + h * call.n, lse + h * call.n + first + length, -INF);
  }
  w.base = (floor_div(stop - 1, QUERY_TILE) - n) * QUERY_TILE;
  w.i0 = maximum(w.base, length);
  w.i1 = minimum(w.base + QUERY_TILE, stop) - 1;
  if (w.i1 < w.i0) return;
  w.begin = 0, w.end = stop, w.n_k = stop;
  w.source = source_of(call, b, head, first);
  w.inputs = Inputs(call, b, first, 0, stop);
  gather_rows(w, call, b, head, first, 0);
  for (int64_t h = head; h < head + TOGETHER; ++h) {
    w.source = source_of(call, b, h, first);
    w.modifiers = Modifiers(call, b, h, 0);
    load_queries(w, matrix(call.q, call.q_stride, b, h, first), call.scale);
    resume(w, h - head);
    visit(w, call.lists, int(h));
    const int64_t r = (h - head) * call.n + w.i0 + first;
    finish(w, out + r * DV, DV, 1, lse + r, 1);
  }
}

int attend_chunk(const sparsec_cached_call& call) {
  if (!sound(call)) return 2;
  const int64_t tiles = (call.n + 2 * QUERY_TILE - 2) / QUERY_TILE;  // that n positions in a row may touch
  const int64_t heads = HEADS / TOGETHER, tasks = call.batch * heads * tiles;
  if (tasks == 0) return 0;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task)
      if (w) run_task(*w, call, task / tiles / heads, task / tiles % heads * TOGETHER, int(task % tiles));
    std::free(w);
  }
  return failed;
}
