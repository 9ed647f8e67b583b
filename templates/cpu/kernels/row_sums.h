#pragma once
#include <algorithm>
#include <cmath>

#include "row.h"
#include "row_shares.h"

// ---- What the shares of every row of every pack leave, and the merging of each row's sums.
typedef Row Work;

// Printed for the pattern: visits the tiles that the row sees, and the keys that it lists itself.
void visit(Work& w, const sparsec_list* lists, int head);

struct alignas(64) Sum {  // what one task leaves of a row of one head, in cache lines of its own
  float o[ValueSteps::WIDE], peak, total;
};

// Leaves the sums of the row's heads at sums[head * apart]; `idle`: it has none.
inline void keep_sums(const Work& w, bool idle, int64_t apart, Sum* sums) {
  for (int r = 0; r < w.pack; ++r) {
    Sum& sum = sums[w.heads[r] * apart];
    sum.total = 0.0f;
    if (idle) continue;
    std::copy(w.o[r], w.o[r] + ValueSteps::WIDE, sum.o);
    sum.peak = w.peak[r], sum.total = w.total[r];
  }
}

// Likewise of one share of row `row`.
template <class Call>
void run_task(Work& w, const Call& call, int64_t b, const Pack& pack, int64_t row, int task, int64_t apart, Sum* sums) {
  const auto end = [&](bool idle) { keep_sums(w, idle, apart, sums); };
  attend_share(w, call, b, pack, row, task, [&] { load_query(w, call, b, row, 0); }, end);
}

// Adds up the `count` sums of a row of head h, and stores it; padding, which has none, becomes 0 and -inf.
template <class Call>
void merge(const Call& call, int64_t h, const Sum* sums, int count, element* out, float* lse) {
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
  for (int d = 0; d < DV; ++d) out[d] = narrow(o[RowOperands::place(d)] * inverse);
  *lse = total == 0.0f ? -INF : (peak + std::log2(total)) * 0.6931471806f;
}
