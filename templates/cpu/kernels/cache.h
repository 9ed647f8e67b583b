#pragma once
#include "elements.h"
#include "printed/calls.h"
#include "vectors.h"

// ---- The cache: a row of slots for each sequence, in it the regions of each group of heads.

// Of a region without slots, every slot is negative.
inline int base_of(const int32_t* place) { return place[1] > 0 ? place[0] : -(1 << 30); }
inline int capacity_of(const int32_t* place) { return maximum(place[1], 1); }

inline const int32_t* places_of(const sparsec_cached_call& call, int64_t group) {
  return call.places + group * REGIONS * 2;
}

// Tokens of sequence b among the call's.
inline int64_t count_of(const sparsec_cached_call& call, int64_t b) { return call.counts ? call.counts[b] : call.n; }

// Tokens before those, and the row of q after them.
inline int tokens_before(const sparsec_cached_call& call, int64_t b) { return call.lengths[b]; }
inline int64_t rows_end(const sparsec_cached_call& call, int64_t) { return call.n; }

// The position of row 0.
inline int first_query(const sparsec_cached_call& call, int64_t b) {
  return tokens_before(call, b) + int(count_of(call, b) - call.n);
}

// Whether no key of the call has an address out of bounds.
bool sound(const sparsec_cached_call& call) {
  for (int64_t n = 0; n < KV_HEADS * REGIONS; ++n) {
    const int64_t base = call.places[2 * n], capacity = call.places[2 * n + 1];
    if (base < 0 || capacity < 0 || base + capacity > call.slots) return false;
  }
  for (int64_t b = 0; b < call.batch; ++b) {
    const int64_t length = call.lengths[b], count = count_of(call, b);
    if (length < 0 || count < 0 || count > call.n || length + count > call.longest) return false;
  }
  for (int64_t n = 0; call.kept && n < call.batch * KV_HEADS; ++n) {
    const int32_t* list = call.kept->lists + 3 * n;
    if (list[0] < 0 || list[2] < 0 || list[2] > list[1] || list[0] + int64_t(list[1]) > call.kept->room) return false;
  }
  return true;
}

// Rows of N numbers, one a slot.
template <int N>
StoredMatrix arena(const void* data, const sparsec_cached_call& call, int64_t b) {
  return {(const stored*)data + b * call.slots * STORED_ROW<N>, STORED_ROW<N>, 1};
}

// Printed for the pattern: slot[n] is that of key[n], negative where it has none. `places`: of the head's group;
// `stop`: the number of keys once those of the call are stored.
void slots_of_keys(const int32_t* places, int head, int stop, const int* key, int count, int* slot);
