#pragma once
#include <cmath>

#include "cache.h"
#include "dot_products.h"
#include "printed/inputs.h"
#include "printed/modifiers.h"

// ---- A row: one query of each head of a pack, the keys that it sees, and its online soft-max.
constexpr int SHARE = HEADS / KV_HEADS;

struct Work {  // one thread's scratch
  float q[SHARE][KeySteps::WIDE];  // times the score's scale
  float o[SHARE][ValueSteps::WIDE];  // the sum of weights times values, relative to 2^peak
  float peak[SHARE], total[SHARE];
  float s[SHARE][BATCH];
  int at[BATCH], slot[BATCH];  // keys to attend to; BATCH - KEY_TILE of them or fewer wait
  const element *key[BATCH + AHEAD], *value[BATCH + AHEAD];
  int waiting;
  Modifiers modifiers[SHARE];  // of the heads' scores
  ivec lane[VECS];  // 0, 1, ..., PANEL - 1
  Matrix k, v, keys, values;  // of the call, rows are positions; of the cache, rows are slots
  Inputs inputs;  // of the pattern
  const int32_t* places;
  const int* heads;  // of the pack
  int pack, length;  // its size; keys before `length` are in the cache
  int i0, i1;  // the row, twice
  int begin, end, n_k;
  int turn, first, stop;  // of the row's tiles this task takes those whose turn is from `first` to `stop`
};

// Printed for the pattern: visits the tiles that the row sees.
void visit(Work& w, const sparsec_list* lists, int head);

// Turns the scores of the waiting keys into weights, for head r of the pack.
inline void weigh(Work& w, int r) {
  const vec lowest = splat(LOWEST_EXPONENT);
  float* s = w.s[r];
  vec largest = splat(w.peak[r]), total = {};
  for (int n = 0; n < w.waiting; n += PANEL) {
    vec x[VECS];
    EACH(v, VECS) x[v] = load(s + n + v * LANES);
    ivec at[VECS];
    EACH(v, VECS) std::memcpy(&at[v], w.at + n + v * LANES, sizeof at[v]);
    Modifiers::Kept<VECS> kept;
    w.modifiers[r].forward(x, kept, at, &w.i0);
    EACH(v, VECS) {
      ivec there = w.lane[v] + n < w.waiting;
      x[v] = there ? x[v] : splat(-INF);
      largest = maximum(x[v], largest);
      store(s + n + v * LANES, x[v]);
    }
  }
  float peak = w.peak[r];
  for (int n = 0; n < LANES; ++n) peak = largest[n] > peak ? largest[n] : peak;
  const vec shift = splat(peak == -INF ? 0.0f : peak);
  for (int n = 0; n < w.waiting; n += PANEL) {
    vec p[VECS];
    EACH(v, VECS) p[v] = load(s + n + v * LANES) - shift;
    exp2(p, lowest);
    EACH(v, VECS) total += p[v];
    EACH(v, VECS) store(s + n + v * LANES, p[v]);
  }
  const float factor = w.peak[r] == peak ? 1.0f : std::exp2(w.peak[r] - peak);
  w.peak[r] = peak;
  w.total[r] *= factor;
  for (int n = 0; n < LANES; ++n) w.total[r] += total[n];
  if (factor != 1.0f)
    for (int d = 0; d < ValueSteps::WIDE; ++d) w.o[r][d] *= factor;
}

template <int R>
inline void score_heads(Work& w, int r) {
  score<R>(w.q + r, w.key, w.value, w.waiting, w.s + r);
}

template <int R>
inline void gather_heads(Work& w, int r) {
  gather<R>(w.s + r, w.value, w.waiting, w.o + r);
}

// Attends to the keys that wait.
void attend(Work& w) {
  const int count = w.waiting;
  if (count == 0) return;
  slots_of_keys(w.places, w.heads[0], w.n_k, w.at, count, w.slot);
  for (int n = 0; n < count; ++n) {
    const bool old = w.at[n] < w.length;
    const int64_t row = old ? maximum(w.slot[n], 0) : w.at[n];
    w.key[n] = (old ? w.keys : w.k).data + row * (old ? w.keys : w.k).row;
    w.value[n] = (old ? w.values : w.v).data + row * (old ? w.values : w.v).row;
  }
  for (int n = count; n < count + AHEAD; ++n) w.key[n] = w.key[count - 1], w.value[n] = w.value[count - 1];
  int r = 0;
  if constexpr (SHARE >= 4)
    for (; r + 4 <= w.pack; r += 4) score_heads<4>(w, r);
  if constexpr (SHARE >= 2)
    for (; r + 2 <= w.pack; r += 2) score_heads<2>(w, r);
  for (; r < w.pack; ++r) score_heads<1>(w, r);
  for (r = 0; r < w.pack; ++r) weigh(w, r);
  r = 0;
  if constexpr (SHARE >= 4)
    for (; r + 4 <= w.pack; r += 4) gather_heads<4>(w, r);
  if constexpr (SHARE >= 2)
    for (; r + 2 <= w.pack; r += 2) gather_heads<2>(w, r);
  for (; r < w.pack; ++r) gather_heads<1>(w, r);
  w.waiting = 0;
}

// Whether the next tile is this task's; if so, there is room for its keys.
inline bool takes(Work& w) {
  const int turn = w.turn++;
  const bool mine = (turn >= w.first) & (turn < w.stop);
  if (mine && w.waiting > BATCH - KEY_TILE) attend(w);
  return mine;
}

inline void attend_full(Work& w, int tile) {
  if (!takes(w)) return;
  const int count = minimum(tile * KEY_TILE + KEY_TILE, w.end) - tile * KEY_TILE;
  for (int n = 0; n < count; ++n) w.at[w.waiting + n] = tile * KEY_TILE + n;
  w.waiting += count;
}

// `live(j, i)` is the mask of keys j for row i.
template <class Live>
inline void attend_masked(Work& w, int tile, const Live& live) {
  if (!takes(w)) return;
  for (int first = tile * KEY_TILE; first < minimum(tile * KEY_TILE + KEY_TILE, w.end); first += PANEL) EACH(v, VECS) {
      const ivec j = w.lane[v] + first, seen = live(j, w.i0) & (j < w.end);
      for (int n = 0; n < LANES; ++n) {
        w.at[w.waiting] = j[n];
        w.waiting -= seen[n];
      }
    }
}
