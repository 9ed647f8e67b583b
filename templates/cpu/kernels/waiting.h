#pragma once
#include <type_traits>

#include "dot_products.h"
#include "printed/inputs.h"
#include "printed/key_rows.h"
#include "printed/modifiers.h"

// ---- Waiting keys: those of one row and the heads of a pack, as they are found; many are attended to at a time.
constexpr int SHARE = HEADS / KV_HEADS;

struct Waiting {
  int at[BATCH], slot[BATCH];  // keys to attend to; BATCH - KEY_TILE of them or fewer wait
  const stored *key[BATCH + SPARE], *value[BATCH + SPARE];  // the last of them once more after them
  int waiting;
  ivec lane[VECS];  // 0, 1, ..., PANEL - 1
  Source source;  // of keys and values
  Inputs inputs;  // of the pattern
  const int* heads;  // of the pack
  int pack;  // its size
  int i0, i1;  // the row, twice
  int begin, end, n_k;
  int turn, first, stop;  // of the row's tiles this task takes those whose turn is from `first` to `stop`
};

// Calls `of` for the heads of a pack, as many at once as share the reading of a key: their number, then the first.
template <class Of>
inline void by_heads(int pack, const Of& of) {
  int r = 0;
  if constexpr (SHARE >= 4)
    for (; r + 4 <= pack; r += 4) of(std::integral_constant<int, 4>(), r);
  if constexpr (SHARE >= 2)
    for (; r + 2 <= pack; r += 2) of(std::integral_constant<int, 2>(), r);
  for (; r < pack; ++r) of(std::integral_constant<int, 1>(), r);
}

// Whether heads of a KV group may see other keys, by an input or a key's bias: each is then a pack of its own.
template <class Call>
inline bool each_alone(const Call& call) {
  if constexpr (Modifiers::KEYS)
    if (call.bias_heads > KV_HEADS) return true;
  return tells_heads_apart(call);
}

// Points at the keys that wait, and once more at the last of them.
inline void point_waiting(Waiting& w) {
  const int count = w.waiting;
  point_rows(w.source, w.heads[0], w.n_k, w.at, count, w.slot, w.key, w.value);
  for (int n = count; n < count + SPARE; ++n) w.key[n] = w.key[count - 1], w.value[n] = w.value[count - 1];
}

// Lets keys wait no longer, so that there is room for a tile.
template <class Row>
inline void make_room(Row& w) {
  attend(w);
}

// Whether tiles have no turns that can be told from their number: over pages alone.
template <class Row>
inline bool shares_tiles(const Row&) {
  return false;
}

// Of `count` tiles that come next those before the first that is this task's; their turns are past.
template <class Row>
inline int passed(Row& w, int count) {
  if (shares_tiles(w)) return 0;
  const int before = maximum(minimum(w.first - w.turn, count), 0);
  w.turn += before;
  return before;
}

// Whether none of the `count` tiles that come next is this task's; their turns are past then.
template <class Row>
inline bool passes(Row& w, int count) {
  if (w.turn < w.stop || shares_tiles(w)) return false;
  w.turn += count;
  return true;
}

// Whether the next tile is this task's; if so, there is room for its keys.
template <class Row>
inline bool takes(Row& w) {
  const int turn = w.turn++;
  const bool mine = (turn >= w.first) & (turn < w.stop);
  if (mine && w.waiting > BATCH - KEY_TILE) make_room(w);
  return mine;
}

// Lets those of LANES keys wait that are seen.
inline void add_seen(Waiting& w, ivec keys, ivec seen) {
  if (!any(~seen)) {
    std::memcpy(w.at + w.waiting, &keys, sizeof keys);
    w.waiting += LANES;
    return;
  }
  for (int n = 0; n < LANES; ++n) {
    w.at[w.waiting] = keys[n];
    w.waiting -= seen[n];
  }
}
