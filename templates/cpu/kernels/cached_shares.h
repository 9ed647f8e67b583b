#pragma once
#include <algorithm>

#include "cache.h"
#include "printed/packs.h"
#include "share_count.h"

// How many tasks share a row of a group at most: by the keys that there can be. Some may be left idle. ROW_TASKS of all
// packs keep the threads of a machine busy; more than these have twice as many keys each.
int tasks_of(const sparsec_cached_call& call, int64_t b, int64_t g) {
  int64_t kept = count_of(call, b);
  for (int n = 0; n < REGIONS; ++n) kept += places_of(call, g)[2 * n + 1];
  if (call.kept) kept += call.kept->lists[(b * KV_HEADS + g) * 3 + 2];
  const int64_t keys = std::min<int64_t>(kept, call.lengths[b] + count_of(call, b));
  constexpr int64_t BUSY = (ROW_TASKS + PACK_COUNT - 1) / PACK_COUNT;
  return int(shares_of(keys, std::max(BUSY, shares_of(keys / 2, MOST_TASKS))));
}

// The most of a row of the call.
int most_tasks(const sparsec_cached_call& call) {
  int most = 1;
  for (int64_t b = 0; b < call.batch; ++b)
    for (int64_t g = 0; g < KV_HEADS; ++g) most = maximum(most, tasks_of(call, b, g));
  return most;
}
