#pragma once
#include <algorithm>
#include <cstdlib>

#include "cached_shares.h"
#include "row_mass.h"
#include "row_shares.h"

// ---- Mass of a cache's keys: row after row, what each gives its keys; a key is in one share of a row.
typedef Row Work;

// Printed for the pattern: visits the tiles that the row sees, and the keys that it lists itself.
void visit(Work& w, const sparsec_list* lists, int head);

void add_share(Work& w, const sparsec_cached_call& call, int64_t b, const Pack& pack, int64_t row, int task) {
  const int64_t lse_stride[3] = {HEADS * call.n, call.n, 1};
  const auto start = [&] {
    for (int r = 0; r < w.pack; ++r) w.sums[r] = call.mass + (b * HEADS + w.heads[r]) * call.mass_keys;
    w.apart = 1;
    load_query(w, call, b, row, 0, lse_stride);
  };
  attend_share(w, call, b, pack, row, task, start, [](bool) {});
}

int add_mass(const sparsec_cached_call& call) {
  if (!sound(call)) return 2;
  for (int64_t b = 0; b < call.batch; ++b)
    if (call.lengths[b] + count_of(call, b) > call.mass_keys) return 2;
  const int most = most_tasks(call);
  const int64_t tasks = call.batch * PACK_COUNT * most;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, std::max<int64_t>(tasks, 1)))) \
    reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
    for (int64_t row = 0; row < call.n; ++row) {
#pragma omp for schedule(dynamic, 1)
      for (int64_t n = 0; n < tasks; ++n) {
        const Pack& pack = PACKS[n / most % PACK_COUNT];
        if (w && (!call.mass_groups || call.mass_groups[pack.group]))
          add_share(*w, call, n / most / PACK_COUNT, pack, row, int(n % most));
      }
    }
    std::free(w);
  }
  return failed;
}
