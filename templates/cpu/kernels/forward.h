#pragma once
#include <algorithm>
#include <cstdlib>

#include "panels.h"
#include "parts.h"

// ---- Tasks: every query tile of every head; each is computed whole by one thread.
struct Task {  // TOGETHER heads from `head` on
  int64_t b, head;
  Tile tile;

  int first() const { return maximum(tile.base, tile.part.q0); }
  int stop() const { return minimum(tile.base + QUERY_TILE, tile.part.q1); }  // rows first .. stop - 1
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

// Says which tile comes next, if it is one that the rows have; its keys and values are fetched before.
inline void expect(Work& w, int tile) {
  w.ahead.keys.left = w.ahead.values.left = 0;
  if (tile < 0) return;
  const int first = maximum(tile * KEY_TILE, w.begin), rows = minimum(tile * KEY_TILE + KEY_TILE, w.end) - first;
  if (rows <= 0) return;
  const StoredMatrix &k = w.source.k, &v = w.source.v;
  w.ahead.keys.start(k.data + first * k.row, k.row * sizeof(stored), rows);
  w.ahead.values.start(v.data + first * v.row, v.row * sizeof(stored), rows);
}

inline element* rows_of(const void* data, const int64_t* stride, const Task& task, int64_t h) {
  return (element*)data + task.b * stride[0] + h * stride[1] + (task.first() + task.tile.part.q_row) * stride[2];
}

// The thread has `next` next.
void run_task(Work& w, const sparsec_call& call, const Task& task, const Task& next) {
  const Part& part = task.tile.part;
  const int64_t b = task.b, head = task.head;
  w.base = task.tile.base;
  w.i0 = task.first(), w.i1 = task.stop() - 1;
  w.begin = part.begin, w.end = part.end, w.n_k = part.n_k;
  w.source = source_of(call, b, head, part.k_row);
  w.inputs = Inputs(call, b, part.q_row, part.k_row, part.n_k);
  gather_rows(w, call, b, head, part.q_row, part.k_row);
  for (int64_t h = head; h < head + TOGETHER; ++h) {
    w.modifiers = Modifiers(call, b, h, part.k_row);
    load_queries(w, matrix(call.q, call.q_stride, b, h, part.q_row), call.scale);
    resume(w, h - head);
    element* const out = rows_of(call.out, call.out_stride, task, h);
    w.ahead.out.start(out, call.out_stride[2] * sizeof(element), w.i1 - w.i0 + 1);
    const bool last = h + 1 == head + TOGETHER;
    const Task& then = last ? next : task;
    w.ahead.queries.start(rows_of(call.q, call.q_stride, then, last ? next.head : h + 1),
                          call.q_stride[2] * sizeof(element), then.stop() - then.first());
    visit(w, call.lists, int(h));
    const int64_t r = w.i0 + part.q_row;
    float* lse = call.lse + b * call.lse_stride[0] + h * call.lse_stride[1] + r * call.lse_stride[2];
    finish(w, out, call.out_stride[2], call.out_stride[3], lse, call.lse_stride[2]);
  }
}

int forward(const sparsec_call& call) {
  const Tasks tasks(call);
  if (!tasks.ready()) return 1;
  if (tasks.count == 0) return 0;
  const int threads = int(std::min<int64_t>(call.threads, tasks.count));
  int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < tasks.count; ++n)
      if (w) run_task(*w, call, tasks[n], tasks[std::min(n + threads, tasks.count - 1)]);
    std::free(w);
  }
  return failed;
}
