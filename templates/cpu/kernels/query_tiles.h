#pragma once
#include <algorithm>

#include "elements.h"
#include "gradients.h"
#include "printed/calls.h"
#include "printed/inputs.h"
#include "printed/tuned_gradients.h"

// ---- Tiles: one key tile of one key head, and a query tile that sees it in full or through a mask.
// CHUNK rows of q are set to zero, prepared and summed at a time.

// Whether dq can add up in the output: it is float32, and its rows are whole vectors.
constexpr bool IN_PLACE = sizeof(element) == sizeof(float) && WIDE == D;

// dq of the query heads of one key head in float32, [heads, Nq, WIDE]; a chunk of rows holds nothing before it is
// touched.
struct Sums {
  float* dq;
  uint8_t* touched;  // [heads, chunks]
};
inline int64_t chunks_of(const sparsec_backward_call& call) { return (call.n_q + CHUNK - 1) / CHUNK; }

// Whether row n has an output that is not finite and no gradient: it then has no part in any gradient, not even a NaN.
inline bool is_silent(const Queries& queries, int n) { return queries.lse[n] == INF && queries.delta[n] == INF; }

struct Work {  // one thread's scratch
  Panel panel[PANELS];
  float s[QUERY_TILE + ROWS][KEY_TILE], t[QUERY_TILE + ROWS][KEY_TILE];
  ivec mask[QUERY_TILE + ROWS][VECS];
  operand ds[DEPTH > 1 ? QUERY_TILE + ROWS : 1][KEY_TILE];
  operand q[QUERY_TILE][row_of(D)], grad[QUERY_TILE][row_of(DV)];
  Operands::Across<D, QUERY_TILE + ROWS> q_across;
  Operands::Across<DV, QUERY_TILE + ROWS> grad_across;
  operand key[KEY_TILE][WIDE], value[KEY_TILE][row_of(DV)];
  Operands::Across<WIDE, KEY_TILE> key_across;
  const operand *key_row[KEY_TILE], *const *key_units;  // rows of `key`, and the same in units across the keys
  float dk[KEY_TILE][WIDE], dv[KEY_TILE][DV], nowhere[WIDE];
  Queries tile, live;
  Keys present, seen;
  ivec lane[VECS];  // 0, 1, ..., PANEL - 1
  Matrix queries, grads;  // of the query head at hand; rows are positions
  float *lse, *delta, *dq;  // likewise; position i is row i + q_row of n_q
  uint8_t* touched;  // likewise, by chunk
  int64_t q_row, n_q;
  Inputs inputs;  // of the pattern
  Modifiers modifiers;  // of the head's scores
  int j0, j1;  // the first and the last key
  int first_lane, last_lane;  // the lanes of keys, over all panels
  int origin, begin, end, n_k;  // queries origin + begin .. origin + end - 1; tile 0 starts at `origin`

  int first_panel() const { return first_lane / PANEL; }
  int last_panel() const { return last_lane / PANEL; }
  operand* ds_rows() { return DEPTH > 1 ? ds[0] : (operand*)t[0]; }
};

// Printed for the pattern: visits the tiles of queries that see some key.
void visit(Work& w, const sparsec_list* lists, int head);

__attribute__((noinline)) void open_tile(Work& w, int tile) {
  const int first = w.origin + maximum(tile * QUERY_TILE, w.begin);
  Queries& queries = w.tile;
  queries.count = w.origin + minimum(tile * QUERY_TILE + QUERY_TILE, w.end) - first;
  point<D>(w.queries, first, queries.count, w.q, queries.q);
  point<DV>(w.grads, first, queries.count, w.grad, queries.grad);
  const int64_t first_row = first + w.q_row;
  for (int64_t chunk = first_row / CHUNK; chunk <= (first_row + queries.count - 1) / CHUNK; ++chunk) {
    const int64_t rows = std::min<int64_t>(CHUNK, w.n_q - chunk * CHUNK);
    if (!w.touched[chunk]) std::memset(w.dq + chunk * CHUNK * WIDE, 0, rows * WIDE * sizeof(float));
    w.touched[chunk] = 1;
  }
  queries.silent = false;
  for (int n = 0; n < queries.count; ++n) {
    const int64_t row = first + n + w.q_row;
    queries.dq[n] = w.dq + row * WIDE;
    queries.lse[n] = w.lse[row];
    queries.delta[n] = w.delta[row];
    queries.at[n] = first + n;
    queries.silent |= is_silent(queries, n);
  }
}

// Has the queries in units across them; their number is even.
inline void lay_across(Work& w, Queries& queries) {
  queries.q_across = w.q_across.of(queries.q, queries.count);
  queries.grad_across = w.grad_across.of(queries.grad, queries.count);
}

inline void copy_query(const Queries& from, int n, Queries& to, int m) {
  to.q[m] = from.q[n], to.grad[m] = from.grad[n], to.dq[m] = from.dq[n];
  to.lse[m] = from.lse[n], to.delta[m] = from.delta[n], to.at[m] = from.at[n];
}

// Fills w.live and w.mask with the tile's queries that see some key of panel p, and w.seen with the keys that some
// query sees; returns the number of queries.
template <class Live>
inline int live_queries(Work& w, int p, const Live& live) {
  ivec j[VECS], present[VECS], seen[VECS] = {};
  EACH(v, VECS) {
    j[v] = w.panel[p].at[v];
    present[v] = (j[v] >= w.j0) & (j[v] <= w.j1) & keeps(w.modifiers, j[v]);
  }
  int count = 0;
  for (int n = 0; n < w.tile.count; ++n) {
    if (w.tile.silent && is_silent(w.tile, n)) continue;
    ivec sees = {};
    EACH(v, VECS) {
      const ivec mask = present[v] & live(j[v], w.tile.at[n]);
      w.mask[count][v] = mask;
      sees |= mask;
      seen[v] |= mask;
    }
    copy_query(w.tile, n, w.live, count);
    count += any(sees);
  }
  w.seen.count = 0;
  for (int n = 0; n < PANEL; n += DEPTH) {
    int32_t some = 0;
    EACH(i, DEPTH) some |= seen[(n + i) / LANES][(n + i) % LANES];
    w.seen.lane[w.seen.count] = p * PANEL + n;
    w.seen.row[w.seen.count] = w.key_units[(p * PANEL + n) / DEPTH];
    w.seen.count -= some;
  }
  return count;
}

// `live(j, i)` is the mask of keys j for query i. What the two of a pair hold, NaN included, has no effect on each
// other if the query does not see the key. A query that sees no key of a panel is not read for that panel, nor for dq a
// key that no query of the tile sees.
template <class Live>
__attribute__((noinline)) void attend_seen(Work& w, const Live& live) {
  w.live.finite = all_finite<D>(w.tile.q, w.tile.count) && all_finite<DV>(w.tile.grad, w.tile.count);
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    const int count = live_queries(w, p, live);
    if (count == 0) continue;
    for (int n = count; n < count + ROWS; ++n) {  // whole blocks: the last query again, seeing nothing
      copy_query(w.live, count - 1, w.live, n);
      w.live.dq[n] = w.nowhere;
      EACH(v, VECS) w.mask[n][v] = ivec{};
    }
    w.live.count = count + count % 2;
    lay_across(w, w.live);
    differentiate<true>(w.panel[p], w.live, w.modifiers, w.mask, w.s[0] + p * PANEL, w.t[0] + p * PANEL,
                        w.ds_rows() + p * PANEL);
    if (w.present.finite) gather(w.seen, w.ds_rows(), w.live);
    else gather_seen(w.seen, w.ds_rows(), w.mask, w.live);
  }
}

template <class Live>
inline void attend_masked(Work& w, int tile, const Live& live) {
  open_tile(w, tile);
  attend_seen(w, live);
}

void attend_full(Work& w, int tile) {
  open_tile(w, tile);
  if (w.tile.silent || !keeps_all(w.modifiers, w.j0, w.j1 + 1))
    return attend_seen(w, [](ivec, int) { return splat(-1); });
  lay_across(w, w.tile);
  for (int p = w.first_panel(); p <= w.last_panel(); ++p)
    differentiate<false>(w.panel[p], w.tile, w.modifiers, w.mask, w.s[0] + p * PANEL, w.t[0] + p * PANEL,
                         w.ds_rows() + p * PANEL);
  gather(w.present, w.ds_rows(), w.tile);
}
