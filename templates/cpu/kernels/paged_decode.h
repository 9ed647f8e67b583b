#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "paged_shared.h"

// ---- Tasks: shares of every row of every pack, of the requests that have few queries, and of the tiles that sets of
// rows share; after them the merging.
int attend_rows(const sparsec_paged_call& call) {
  if (!sound(call)) return 2;
  const FewRows few(call);
  if (!few.rows) return 1;
  if (few.count == 0) return 0;
  // Of each row and head come first what the shares of its set's tiles have, then what those of its own have.
  const int64_t shared = few.tiles > 0 ? shares_of(few.tiles * KEY_TILE, MOST_TASKS) : 0, apart = shared + few.most;
  const int64_t counts = shared > 0 ? few.sets * PACK_COUNT : 0, tasks = few.count * PACK_COUNT * apart;
  // Packs of one share follow each other, for their keys lie side by side.
  const int at_once = tasks < 8 * PACK_COUNT * call.threads ? 1 : PACK_COUNT;
  const int64_t room = few.count * HEADS * apart * sizeof(Sum);  // [count, heads, apart]
  Sum* sums = static_cast<Sum*>(std::aligned_alloc(alignof(Sum), room));
  if (!sums) return 1;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    const int64_t rows = shared > 0 ? ROWS_TOGETHER : 1;
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (rows * sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int64_t n = 0; n < rows * PANEL && w; ++n) w[n / PANEL].lane[n % PANEL / LANES][n % LANES] = int(n % PANEL);
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < counts; ++n)
      if (w) count_tiles(*w, call, few, int(n / PACK_COUNT), n % PACK_COUNT);
#pragma omp for schedule(dynamic, at_once)
    for (int64_t n = 0; n < tasks; ++n) {
      const int64_t share = n / PACK_COUNT % apart, pack = n % PACK_COUNT, at = n / PACK_COUNT / apart;
      Sum* first = sums + at * HEADS * apart + share;
      if (w && share < shared) attend_shared(w, call, few, at, pack, int(share), apart, first);
      if (!w || share < shared) continue;
      set_shared(*w, few, few.rows[at], pack, false);
      run_task(*w, call, few.rows[at].request, PACKS[pack], few.rows[at].row, int(share - shared), apart, first);
    }
    std::free(w);
#pragma omp for
    for (int64_t n = 0; n < few.count * HEADS; ++n) {
      const FewRow& of = few.rows[n / HEADS];
      const int64_t h = n % HEADS, to = of.row * HEADS + h, from = few.set_of[of.set].tiles > 0 ? 0 : shared;
      const int shares = int(shared - from) + tasks_of(call, of.request, h / SHARE);
      merge(call, h, sums + n * apart + from, shares, (element*)call.out + to * DV, call.lse + to);
    }
  }
  std::free(sums);
  return failed;
}
