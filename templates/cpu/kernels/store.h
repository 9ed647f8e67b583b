#pragma once
#include <algorithm>

#include "cache.h"
#include "printed/tuned_store.h"

// ---- Storing: the call's keys and values to the slots that they keep, group by group of every sequence.
// Printed for the pattern: slot[n] is that which key[n] is kept in, negative for none. `places`: of the group.
void slots_to_keep(const int32_t* places, int group, int stop, const int* key, int count, int* slot);

template <int N>
inline void copy_row(const StoredMatrix& from, int row, stored* to) {
  const stored* data = from.data + row * from.row;
  if (from.dim == 1) std::memcpy(to, data, STORED_ROW<N> * sizeof *to);
  else
    for (int d = 0; d < N; ++d) to[d] = data[d * from.dim];
}

void store_group(const sparsec_cached_call& call, int64_t b, int64_t g) {
  constexpr int AT_ONCE = 256;
  const int length = call.lengths[b], stop = length + int(count_of(call, b));
  const StoredMatrix k = matrix<Stored>(call.k, call.k_stride, b, g, call.n - stop),
                     v = matrix<Stored>(call.v, call.v_stride, b, g, call.n - stop);
  stored* keys = (stored*)call.keys + b * call.slots * STORED_ROW<D>;
  stored* values = (stored*)call.values + b * call.slots * STORED_ROW<DV>;
  for (int first = length; first < stop; first += AT_ONCE) {
    const int count = minimum(AT_ONCE, stop - first);
    int key[AT_ONCE], slot[AT_ONCE];
    for (int n = 0; n < count; ++n) key[n] = first + n;
    slots_to_keep(places_of(call, g), int(g), stop, key, count, slot);
    for (int n = 0; n < count; ++n)
      if (slot[n] >= 0) {
        copy_row<D>(k, key[n], keys + int64_t(slot[n]) * STORED_ROW<D>);
        copy_row<DV>(v, key[n], values + int64_t(slot[n]) * STORED_ROW<DV>);
      }
  }
}

int store(const sparsec_cached_call& call) {
  if (!sound(call)) return 2;
  const int64_t tasks = call.batch * KV_HEADS;
  // Threads: waking one takes as long as copying so many elements.
  const int64_t worth = 1 + tasks * call.n * WIDEST / ELEMENTS_A_THREAD;
#pragma omp parallel for schedule(dynamic, 1) \
    num_threads(int(std::min<int64_t>(std::min<int64_t>(call.threads, worth), std::max<int64_t>(tasks, 1))))
  for (int64_t task = 0; task < tasks; ++task) store_group(call, task / KV_HEADS, task % KV_HEADS);
  if (call.state)
    for (int64_t b = 0; b < call.batch; ++b) {
      call.lengths[b] += int32_t(count_of(call, b));
      int64_t *now = call.state + b, *most = now + call.batch;
      *now = call.lengths[b];
      *most = std::max(*most, *now);
    }
  return 0;
}
