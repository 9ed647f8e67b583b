#pragma once
#include <algorithm>

#include "../store.h"

// ---- Marked keys of the call go to the ends of their lists.
// The marks of row `row` of the call for the heads of group g, word by word; whether the key is to be listed.
inline bool marks_of(const sparsec_cached_call& call, int64_t b, int64_t g, int64_t row, uint32_t* words) {
  constexpr int SHARED = HEADS / KV_HEADS;
  std::fill(words, words + KEPT_WORDS, 0u);
  for (int n = 0; n < KEPT_INPUTS; ++n) {
    const sparsec_marks& marks = call.kept->marks[n];
    const uint8_t* data = marks.data + (marks.batch > 1 ? b * marks.stride[0] : 0) + row * marks.stride[2];
    for (int r = 0; r < SHARED; ++r) {
      const int bit = n * SHARED + r;
      const int64_t head = (g * SHARED + r) * marks.heads / HEADS;
      words[bit / 32] |= uint32_t(data[head * marks.stride[1]] != 0) << bit % 32;
    }
  }
  bool wanted = false;
  for (int n = 0; n < KEPT_WORDS; ++n) wanted |= (words[n] & KEPT_WANTED[g][n]) != 0;
  return wanted;
}

void append_group(const sparsec_cached_call& call, int64_t b, int64_t g) {
  const sparsec_kept& kept = *call.kept;
  int32_t* list = kept.lists + (b * KV_HEADS + g) * 3;
  const int length = call.lengths[b], stop = length + int(count_of(call, b));
  const int64_t first_row = call.n - stop;
  const StoredMatrix k = matrix<Stored>(call.k, call.k_stride, b, g, first_row),
                     v = matrix<Stored>(call.v, call.v_stride, b, g, first_row);
  for (int j = length; j < stop; ++j) {
    uint32_t words[KEPT_WORDS];
    if (!marks_of(call, b, g, j + first_row, words)) continue;
    const int64_t entry = list[0] + list[2]++;
    copy_row<D>(k, j, (stored*)kept.keys + entry * STORED_ROW<D>);
    copy_row<DV>(v, j, (stored*)kept.values + entry * STORED_ROW<DV>);
    kept.entries[entry] = j;
    for (int n = 0; n < KEPT_WORDS; ++n) kept.entries[(1 + n) * kept.rows + entry] = int32_t(words[n]);
  }
}

bool has_room(const sparsec_cached_call& call, int64_t b, int64_t g) {
  const int32_t* list = call.kept->lists + (b * KV_HEADS + g) * 3;
  int64_t room = list[1] - list[2];
  for (int64_t row = call.n - count_of(call, b); row < call.n && room >= 0; ++row) {
    uint32_t words[KEPT_WORDS];
    room -= marks_of(call, b, g, row, words);
  }
  return room >= 0;
}

int append(const sparsec_cached_call& call) {
  if (!sound(call)) return 2;
  for (int64_t n = 0; n < call.batch * KV_HEADS; ++n)
    if (!has_room(call, n / KV_HEADS, n % KV_HEADS)) return 3;
  for (int64_t n = 0; n < call.batch * KV_HEADS; ++n) append_group(call, n / KV_HEADS, n % KV_HEADS);
  return 0;
}
