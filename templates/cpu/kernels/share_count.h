#pragma once
#include <algorithm>
#include <cstdint>

#include "printed/tuned_decode.h"

// ---- Shares of the tiles of a row of a pack, each a task.
// A task has KEYS_A_TASK keys at least, but where a row has MOST_TASKS of them more, and in a short row.

// How many of at most `most` tasks share so many keys, never by the number of threads.
inline int64_t shares_of(int64_t keys, int64_t most) {
  return std::min(std::max<int64_t>(keys / KEYS_A_TASK, 1), most);
}
