#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "row.h"
#include "row_shares.h"

// ---- Shares of every row of every pack, and after all of them the merging of each row's sums.
typedef Row Work;

// Printed for the pattern: visits the tiles that the row sees, and the keys that it lists itself.
void visit(Work& w, const sparsec_list* lists, int head);

struct Sum {  // what one task leaves of a row of one head
  float o[ValueSteps::WIDE], peak, total;
};

// Leaves the sums of one share of row `row` at sums[head * call.n * most].
void run_task(Work& w, const sparsec_cached_call& call, int64_t b, const Pack& pack, int64_t row, int task, int most,
              Sum* sums) {
  const auto end = [&](bool idle) {
    for (int r = 0; r < w.pack; ++r) {
      Sum& sum = sums[w.heads[r] * call.n * most];
      sum.total = 0.0f;
      if (idle) continue;
      std::copy(w.o[r], w.o[r] + ValueSteps::WIDE, sum.o);
      sum.peak = w.peak[r], sum.total = w.total[r];
    }
  };
  attend_share(w, call, b, pack, row, task, [&] { load_query(w, call, b, row, 0); }, end);
}

// Adds up the `count` sums of a row of head h, and stores it; padding, which has none, becomes 0 and -inf.
void merge(const sparsec_cached_call& call, int64_t h, const Sum* sums, int count, element* out, float* lse) {
  float peak = -INF, total = 0.0f, o[ValueSteps::WIDE] = {};
  if (count > 0) Modifiers(call, 0, h, 0).start(peak, total);
  for (int n = 0; n < count; ++n) {
    if (sums[n].total == 0.0f) continue;  // it saw no key
    const float larger = sums[n].peak > peak ? sums[n].peak : peak;
    const float before = peak == larger ? 1.0f : std::exp2(peak - larger), now = std::exp2(sums[n].peak - larger);
    total = total * before + sums[n].total * now;
    for (int d = 0; d < ValueSteps::WIDE; ++d) o[d] = o[d] * before + sums[n].o[d] * now;
    peak = larger;
  }
  const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
  for (int d = 0; d < DV; ++d) out[d] = narrow(o[place(d)] * inverse);
  *lse = total == 0.0f ? -INF : (peak + std::log2(total)) * 0.6931471806f;
}

int attend_rows(const sparsec_cached_call& call) {
  if (!sound(call)) return 2;
  const int most = most_tasks(call);
  const int64_t rows = call.batch * call.n, tasks = rows * PACK_COUNT * most;
  if (tasks == 0) return 0;
  Sum* sums = static_cast<Sum*>(std::malloc(rows * HEADS * most * sizeof(Sum)));  // [batch, heads, n, most]
  if (!sums) return 1;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < tasks; ++n) {
      const int64_t task = n % most, pack = n / most % PACK_COUNT, row = n / most / PACK_COUNT;
      const int64_t b = row / call.n, r = row % call.n;
      if (w) run_task(*w, call, b, PACKS[pack], r, int(task), most, sums + (b * HEADS * call.n + r) * most + task);
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
