#pragma once
#include <algorithm>
#include <cstdlib>

#include "panels.h"
#include "parts.h"

// ---- Tasks: every query tile of every head; each is computed whole by one thread.
struct Task {  // TOGETHER heads from `head` on
  int64_t b, head;
  Tile tile;
};

// In the order in which threads take them: head by head, for their keys stay in the cache, and the longest rows first.
struct Tasks {
  const Tiling<sparsec_call> tiling;
  const int64_t tiles, heads, count;

  explicit Tasks(const sparsec_call& call)
      : tiling(call, QUERY_TILE, false),
        tiles(ready() ? tiling.count() : 0),
        heads(HEADS / TOGETHER),
        count(call.batch * heads * tiles) {}
  bool ready() const { return tiling.before != nullptr; }
  Task operator[](int64_t n) const {
    return {n / tiles / heads, n / tiles % heads * TOGETHER, tiling[tiles - 1 - n % tiles]};
  }
};

void run_task(Work& w, const sparsec_call& call, const Task& task) {
  const Part& part = task.tile.part;
  const int64_t b = task.b, head = task.head;
  w.base = task.tile.base;
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
  const Tasks tasks(call);
  if (!tasks.ready()) return 1;
  if (tasks.count == 0) return 0;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks.count))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < tasks.count; ++n)
      if (w) run_task(*w, call, tasks[n]);
    std::free(w);
  }
  return failed;
}
