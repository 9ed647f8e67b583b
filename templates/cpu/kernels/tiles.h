#pragma once
#include "printed/calls.h"
#include "printed/gathers.h"
#include "printed/inputs.h"
#include "printed/keys.h"
#include "softmax.h"

// ---- Tiles: one query tile of one head, and a key tile that it sees in full or through a mask.
struct Work {  // one thread's scratch
  Panel panel[PANELS];
  float s[KEY_TILE + ROWS][PANEL];
  ivec mask[KEY_TILE + ROWS][VECS];
  operand key[KEY_TILE][row_of(D)], value[KEY_TILE][row_of(DV)], query[QUERY_TILE][row_of(D)];
  Products products;  // of the keys at hand
  float rows[QUERY_TILE][WIDEST];
  Keys tile, live;
  ivec lane[VECS];  // 0, 1, ..., PANEL - 1
  Source source;  // of keys and values
  Inputs inputs;  // of the pattern
  Gathered gathered;  // the keys that rows list themselves
  Modifiers modifiers;  // of the head's scores
  Ahead ahead;  // nothing but where a kernel knows what comes next
  int i0, i1, base;  // rows i0 .. i1 are present; lane 0 of panel 0 is row `base`
  int begin, end, n_k;  // keys begin .. end - 1 may be seen
  int first_key;  // of the tile at hand

  int first_panel() const { return (i0 - base) / PANEL; }
  int last_panel() const { return (i1 - base) / PANEL; }
};

// Printed for the pattern: attends to the tiles that some row sees.
void visit(Work& w, const sparsec_list* lists, int head);

__attribute__((noinline)) void open_tile(Work& w, int tile) {
  w.first_key = maximum(tile * KEY_TILE, w.begin);
  w.tile.count = minimum(tile * KEY_TILE + KEY_TILE, w.end) - w.first_key;
  point_tile(w.source, w.n_k, w.first_key, w.tile.count, w.key, w.value, w.tile.key, w.tile.value);
  if constexpr (Modifiers::POSITIONS || Modifiers::KEYS)
    for (int n = 0; n < w.tile.count; ++n) w.tile.at[n] = w.first_key + n;
}

// Fills w.live and w.mask with the tile's keys that some row of panel p sees; returns how many they are. `whole`:
// whether they are KEY_TILE and each row sees each. `at(n)` is the position of key n.
template <class At, class Live>
inline int live_keys(Work& w, int p, const At& at, const Live& live, bool& whole) {
  ivec i[VECS], present[VECS];
  EACH(v, VECS) {
    i[v] = w.lane[v] + (w.base + p * PANEL);
    present[v] = (i[v] >= w.i0) & (i[v] <= w.i1);
  }
  int count = 0;
  ivec missed = {};
  for (int n = 0; n < w.tile.count; ++n) {
    const int j = at(n);
    if (!keeps(w.modifiers, j)) continue;
    ivec seen = {};
    EACH(v, VECS) {
      const ivec mask = present[v] & live(i[v], j);
      w.mask[count][v] = mask;
      seen |= mask;
      missed |= present[v] & ~mask;
    }
    w.live.key[count] = w.tile.key[n];
    w.live.value[count] = w.tile.value[n];
    if constexpr (Modifiers::POSITIONS || Modifiers::KEYS) w.live.at[count] = j;
    count += any(seen);
  }
  whole = count == KEY_TILE && !any(missed);
  return count;
}

// The tile at hand; `live(i, j)` is the mask of rows i for key j, `at` as above. What a key holds, NaN included, has no
// effect on a row that does not see it. One that no row of a panel sees is not read for that panel, so that a diagonal
// tile costs little more than half.
template <class At, class Live>
inline void attend_seen(Work& w, const At& at, const Live& live) {
  w.live.finite = all_finite<DV>(w.tile.value, w.tile.count);
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    bool whole;
    const int count = live_keys(w, p, at, live, whole);
    if (count == 0) continue;
    if (whole) {
      w.products.open(w.tile);
      attend<false>(w.panel[p], w.tile, w.products, w.modifiers, w.mask, w.s, w.ahead);
      continue;
    }
    for (int n = count; n < count + ROWS; ++n) {  // whole blocks: the last key again, seen by nobody
      w.live.key[n] = w.live.key[count - 1];
      w.live.value[n] = w.live.value[count - 1];
      if constexpr (Modifiers::POSITIONS || Modifiers::KEYS) w.live.at[n] = w.live.at[count - 1];
      EACH(v, VECS) w.mask[n][v] = ivec{};
    }
    w.live.count = count + count % 2;
    w.products.open(w.live);
    attend<true>(w.panel[p], w.live, w.products, w.modifiers, w.mask, w.s, w.ahead);
  }
}

template <class Live>
__attribute__((noinline)) void attend_masked(Work& w, int tile, const Live& live) {
  open_tile(w, tile);
  attend_seen(w, [&w](int n) { return w.first_key + n; }, live);
}

void attend_full(Work& w, int tile) {
  open_tile(w, tile);
  if (!keeps_all(w.modifiers, w.first_key, w.first_key + w.tile.count))
    return attend_masked(w, tile, [](ivec, int) { return splat(-1); });
  w.products.open(w.tile);
  for (int p = w.first_panel(); p <= w.last_panel(); ++p)
    attend<false>(w.panel[p], w.tile, w.products, w.modifiers, w.mask, w.s, w.ahead);
}
