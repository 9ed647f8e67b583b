#pragma once
#include <algorithm>
#include <cstdlib>

#include "cached_shares.h"
#include "row_attend.h"
#include "row_sums.h"

// ---- Tasks: shares of every row of every pack, and after all of them the merging of each row's sums.
struct RowTask {  // share `share` of row `row` of sequence b
  int64_t b, row, pack;
  int share;
};

// Task n, of `most` shares at most a row, in the order in which threads take them.
inline RowTask row_task(const sparsec_cached_call& call, int most, int64_t n) {
  const int64_t row = n / most / PACK_COUNT;
  return {row / call.n, row % call.n, n / most % PACK_COUNT, int(n % most)};
}

// [batch, heads, n, most]: that of a task's row and head 0; those of its heads are call.n * most apart.
inline Sum* sums_of(const sparsec_cached_call& call, int most, const RowTask& task, Sum* sums) {
  return sums + (task.b * HEADS * call.n + task.row) * most + task.share;
}

int attend_rows(const sparsec_cached_call& call) {
  if (!sound(call)) return 2;
  const int most = most_tasks(call);
  const int64_t rows = call.batch * call.n, tasks = rows * PACK_COUNT * most;
  if (tasks == 0) return 0;
  Sum* sums = static_cast<Sum*>(std::aligned_alloc(alignof(Sum), rows * HEADS * most * sizeof(Sum)));
  if (!sums) return 1;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < tasks; ++n) {
      const RowTask task = row_task(call, most, n);
      if (w)
        run_task(*w, call, task.b, PACKS[task.pack], task.row, task.share, call.n * most,
                 sums_of(call, most, task, sums));
    }
    std::free(w);
#pragma omp for
    for (int64_t n = 0; n < rows * HEADS; ++n) {
      const int64_t b = n / call.n / HEADS, h = n / call.n % HEADS;
      const bool padding = n % call.n < call.n - count_of(call, b);
      const int count = padding ? 0 : tasks_of(call, b, h / SHARE);
      merge(call, h, sums + n * most, count, (element*)call.out + n * DV, call.lse + n);
    }
  }
  std::free(sums);
  return failed;
}
