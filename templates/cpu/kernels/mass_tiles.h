#pragma once
#include "elements.h"
#include "parts.h"
#include "printed/calls.h"
#include "printed/inputs.h"
#include "printed/modifiers.h"
#include "products.h"
#include "transpose.h"

// ---- Mass: of each key and query head, the sum of the soft-max weights that the queries give it; lanes are keys.
struct Queries {  // the queries of one tile, in order; ROWS more entries, so that every block is whole
  int count;
  const float* q[QUERY_TILE + ROWS];
  float lse[QUERY_TILE + ROWS];  // in base 2; +inf for an empty row, so that its weights are 0
  int at[QUERY_TILE + ROWS];  // positions
};

struct Panel {
  float k[D][PANEL];  // times the score's scale
  vec sum[VECS];
  ivec at[VECS];  // positions
};

struct Work {  // one thread's scratch
  Panel panel[PANELS];
  float s[QUERY_TILE + ROWS][KEY_TILE];
  ivec mask[QUERY_TILE + ROWS][VECS];
  float q[QUERY_TILE][D], key[KEY_TILE][D];
  Queries tile, live;
  ivec lane[VECS];  // 0, 1, ..., PANEL - 1
  Matrix queries;  // rows are positions
  const float* lse;  // position i is row i + q_row, `lse_row` numbers apart
  int64_t lse_row, q_row;
  Inputs inputs;  // of the pattern
  Modifiers modifiers;  // of the head's scores
  int j0, j1;  // the first and the last key
  int first_lane, last_lane;  // the lanes of keys, over all panels
  int origin, begin, end, n_k;  // queries origin + begin .. origin + end - 1; tile 0 starts at `origin`

  int first_panel() const { return first_lane / PANEL; }
  int last_panel() const { return last_lane / PANEL; }
};

// Printed for the pattern: visits the tiles of queries that see some key.
void visit(Work& w, const sparsec_list* lists, int head);

__attribute__((noinline)) void open_tile(Work& w, int tile) {
  const int first = w.origin + maximum(tile * QUERY_TILE, w.begin);
  Queries& queries = w.tile;
  queries.count = w.origin + minimum(tile * QUERY_TILE + QUERY_TILE, w.end) - first;
  point<D>(w.queries, first, queries.count, w.q, queries.q);
  for (int n = 0; n < queries.count; ++n) {
    const float lse = w.lse[(first + n + w.q_row) * w.lse_row] * LOG2E;
    queries.lse[n] = lse == -INF ? INF : lse;
    queries.at[n] = first + n;
  }
}

// Adds the weights of the queries to the sums of the panel's keys; the number of queries is even. A tile is summed
// first, so that rounding grows with the number of tiles and not with that of queries.
template <bool MASKED>
__attribute__((noinline)) void add_weights(Panel& panel, const Queries& queries, Modifiers modifiers,
                                           const ivec (*mask)[VECS], float* s) {
  product(panel.k, queries.q, queries.count, 1.0f, s);
  const vec lowest = splat(LOWEST_EXPONENT);
  vec sum[VECS] = {}, more[VECS];
  EACH(v, VECS) more[v] = of_keys(modifiers, panel.at[v]);
  for (int n = 0; n < queries.count; n += 2, s += 2 * KEY_TILE) {
    vec p[2 * VECS];
    EACH(m, 2) EACH(v, VECS) p[m * VECS + v] = load(s + m * KEY_TILE + v * LANES);
    Modifiers::Kept<2 * VECS> kept;
    modifiers.forward(p, kept, panel.at, queries.at + n);
    EACH(m, 2) EACH(v, VECS) p[m * VECS + v] = added(p[m * VECS + v], more[v]) - queries.lse[n + m];
    exp2(p, lowest);
    EACH(m, 2) EACH(v, VECS) {
      if (MASKED) p[m * VECS + v] = mask[n + m][v] ? p[m * VECS + v] : vec{};
      sum[v] += p[m * VECS + v];
    }
  }
  EACH(v, VECS) panel.sum[v] += sum[v];
}

inline void copy_query(const Queries& from, int n, Queries& to, int m) {
  to.q[m] = from.q[n], to.lse[m] = from.lse[n], to.at[m] = from.at[n];
}

// Fills w.live and w.mask with the tile's queries that see some key of panel p; returns their number.
template <class Live>
inline int live_queries(Work& w, int p, const Live& live) {
  ivec j[VECS], present[VECS];
  EACH(v, VECS) {
    j[v] = w.panel[p].at[v];
    present[v] = (j[v] >= w.j0) & (j[v] <= w.j1) & keeps(w.modifiers, j[v]);
  }
  int count = 0;
  for (int n = 0; n < w.tile.count; ++n) {
    ivec sees = {};
    EACH(v, VECS) {
      w.mask[count][v] = present[v] & live(j[v], w.tile.at[n]);
      sees |= w.mask[count][v];
    }
    copy_query(w.tile, n, w.live, count);
    count += any(sees);
  }
  return count;
}

// `live(j, i)` is the mask of keys j for query i. A query that sees no key of a panel is not read for that panel.
template <class Live>
__attribute__((noinline)) void attend_masked(Work& w, int tile, const Live& live) {
  open_tile(w, tile);
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    const int count = live_queries(w, p, live);
    if (count == 0) continue;
    for (int n = count; n < count + ROWS; ++n) {  // whole blocks: the last query again, seeing nothing
      copy_query(w.live, count - 1, w.live, n);
      EACH(v, VECS) w.mask[n][v] = ivec{};
    }
    w.live.count = count + count % 2;
    add_weights<true>(w.panel[p], w.live, w.modifiers, w.mask, w.s[0]);
  }
}

void attend_full(Work& w, int tile) {
  if (!keeps_all(w.modifiers, w.j0, w.j1 + 1)) return attend_masked(w, tile, [](ivec, int) { return splat(-1); });
  open_tile(w, tile);
  for (int p = w.first_panel(); p <= w.last_panel(); ++p)
    add_weights<false>(w.panel[p], w.tile, w.modifiers, w.mask, w.s[0]);
}

// Lays `count` keys from lane `first` on across the panels, whose rows w.key has.
void lay_keys(Work& w, int first, int count, float scale) {
  w.first_lane = first, w.last_lane = first + count - 1;
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    to_panel(w.key[p * PANEL], D, w.panel[p].k);
    Operands::scale(w.panel[p].k[0], D * VECS, scale * Modifiers::UNIT);
    EACH(v, VECS) w.panel[p].sum[v] = vec{};
  }
}

inline float mass_at(const Work& w, int lane) { return w.panel[lane / PANEL].sum[lane % PANEL / LANES][lane % LANES]; }

void open_head(Work& w, const sparsec_mass_call& call, int64_t b, int64_t h, const Part& part) {
  w.origin = floor_div(part.q0, QUERY_TILE) * QUERY_TILE;
  w.begin = part.q0 - w.origin, w.end = part.q1 - w.origin, w.n_k = part.n_k;
  w.queries = matrix(call.q, call.q_stride, b, h, part.q_row);
  w.lse = call.lse + b * call.lse_stride[0] + h * call.lse_stride[1];
  w.lse_row = call.lse_stride[2], w.q_row = part.q_row;
  w.modifiers = Modifiers(call, b, h, part.k_row);
  w.inputs = Inputs(call, b, part.q_row, part.k_row, part.n_k);
}
