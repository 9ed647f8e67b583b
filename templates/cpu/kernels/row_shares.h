#pragma once
#include <algorithm>

#include "cache.h"
#include "printed/packs.h"
#include "printed/tuned_decode.h"
#include "row_tiles.h"

// ---- Tasks: shares of the tiles of a row of a pack.
// A task has KEYS_A_TASK keys at least, but where a row has MOST_TASKS of them more, and in a short row.

// How many of at most `most` tasks share so many keys, never by the number of threads.
inline int64_t shares_of(int64_t keys, int64_t most) {
  return std::min(std::max<int64_t>(keys / KEYS_A_TASK, 1), most);
}

// How many tasks share a row of a group at most: by the keys that there can be. Some may be left idle.
int tasks_of(const sparsec_cached_call& call, int64_t b, int64_t g) {
  int64_t kept = count_of(call, b);
  for (int n = 0; n < REGIONS; ++n) kept += places_of(call, g)[2 * n + 1];
  if (call.kept) kept += call.kept->lists[(b * KV_HEADS + g) * 3 + 2];
  const int64_t keys = std::min<int64_t>(kept, call.lengths[b] + count_of(call, b));
  return int(shares_of(keys, MOST_TASKS));
}

// The most of a row of the call.
int most_tasks(const sparsec_cached_call& call) {
  int most = 1;
  for (int64_t b = 0; b < call.batch; ++b)
    for (int64_t g = 0; g < KV_HEADS; ++g) most = maximum(most, tasks_of(call, b, g));
  return most;
}

// Attends to one share of row `row`, by as many heads of the pack at a time as see the same keys: w has them between
// `start()` and `end(false)`; of a share that is left idle `end(true)` alone. Nothing of padding, and of a share that
// the row has not.
template <class Work, class Start, class End>
void attend_share(Work& w, const sparsec_cached_call& call, int64_t b, const Pack& pack, int64_t row, int task,
                  const Start& start, const End& end) {
  w.n_k = w.end = call.lengths[b] + int(count_of(call, b));
  w.begin = 0, w.i0 = w.i1 = int(row - call.n) + w.n_k;
  const int tasks = tasks_of(call, b, pack.group);
  if (w.i0 < call.lengths[b] || task >= tasks) return;
  const bool alone = each_alone(call);
  for (int n = 0; n < pack.size; n += w.pack) {
    w.heads = pack.heads + n, w.pack = alone ? 1 : pack.size;
    w.source = source_of(call, b, w.heads[0], call.n - w.n_k);
    w.inputs = Inputs(call, b, call.n - w.n_k, 0, w.n_k);
    w.turn = w.first = w.stop = w.waiting = 0;
    if (tasks > 1) visit(w, call.lists, w.heads[0]);  // only counts the tiles
    const int64_t tiles = tasks > 1 ? w.turn : INT32_MAX, shares = shares_of(tiles * KEY_TILE, tasks);
    w.turn = 0, w.first = int(tiles * task / shares), w.stop = int(tiles * (task + 1) / shares);
    if (task < shares) {
      start();
      visit(w, call.lists, w.heads[0]);
      attend(w);
    }
    end(task >= shares);
  }
}
