#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "paged.h"
#include "row_sums.h"

// ---- Tasks: shares of every row of every pack, of the requests that have few queries; after them the merging.
struct FewRow {
  int64_t request, row;  // of q
};

int attend_rows(const sparsec_paged_call& call) {
  if (!sound(call)) return 2;
  const std::unique_ptr<FewRow[]> rows(new (std::nothrow) FewRow[call.tokens + 1]);
  if (!rows) return 1;
  int64_t count = 0;
  int most = 1;
  for (int64_t r = 0; r < call.requests; ++r) {
    if (count_of(call, r) > call.few) continue;
    for (int64_t row = call.starts[r]; row < call.starts[r + 1]; ++row) rows[count++] = {r, row};
    if (count_of(call, r) > 0) most = maximum(most, tasks_of(call, r, 0));
  }
  if (count == 0) return 0;
  const int64_t tasks = count * PACK_COUNT * most, apart = most;
  const int at_once =
      tasks < 8 * PACK_COUNT * call.threads ? 1 : PACK_COUNT;  // packs of one share, whose keys lie side by side
  Sum* sums = static_cast<Sum*>(std::malloc(count * HEADS * most * sizeof(Sum)));  // [count, heads, most]
  if (!sums) return 1;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, at_once)
    for (int64_t n = 0; n < tasks; ++n) {
      const int64_t task = n / PACK_COUNT % most, pack = n % PACK_COUNT, at = n / PACK_COUNT / most;
      Sum* first = sums + at * HEADS * most + task;
      if (w) run_task(*w, call, rows[at].request, PACKS[pack], rows[at].row, int(task), apart, first);
    }
    std::free(w);
#pragma omp for
    for (int64_t n = 0; n < count * HEADS; ++n) {
      const FewRow& of = rows[n / HEADS];
      const int64_t h = n % HEADS, to = of.row * HEADS + h;
      const int shares = tasks_of(call, of.request, h / SHARE);
      merge(call, h, sums + n * most, shares, (element*)call.out + to * DV, call.lse + to);
    }
  }
  std::free(sums);
  return failed;
}
