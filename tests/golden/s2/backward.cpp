// Sparse attention, the gradients of q, k and v.
//
// A key tile of one key head is laid across vector lanes and visits, for each query head of its group, the query tiles
// of the head's class in the order below: weights and the gradients of the scores are recomputed tile by tile; those of
// k and v add up beside the key tile, those of q in a float32 matrix. The key tiles of a key head are dealt out in
// shares, each a task with a matrix of its own, and the shares are summed in order: no atomics, the same bits whatever
// the number of threads.
//
// Here: 16 query heads on 8 key heads, head dim 128, float32.
// Build: c++ -std=c++17 -O3 -march=native -fopenmp -shared -fPIC, without -ffast-math (infinities carry meaning).
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

...

#ifndef SPARSEC_BACKWARD_CALL
#define SPARSEC_BACKWARD_CALL
struct sparsec_backward_call {  // strides in elements; shapes as in the forward call; dq, dk, dv are contiguous
  const void* grad_out;
  const void* q;
  const void* k;
  const void* v;
  const void* out;
  const float* lse;
  const float* grad_lse;  // null for zeros
  void* dq;
  void* dk;
  void* dv;
  int64_t grad_out_stride[4];
  int64_t q_stride[4];
  int64_t k_stride[4];
  int64_t v_stride[4];
  int64_t out_stride[4];
  int64_t lse_stride[3];
  int64_t grad_lse_stride[3];
  int64_t batch;
  int64_t n_q;
  int64_t n_k;
  int64_t q0;  // the position of the first query
  const sparsec_list* lists;
  const sparsec_lookup* inputs;  // two for each test of an input
  const float* sink;  // [H], for a learned sink
  const float* key_bias;  // [b, x, keys], for a key bias; of b = 1 the stride is 0
  int64_t bias_heads;
  int64_t bias_keys;
  int64_t bias_stride[3];
  float* dsink;  // [H], likewise
  float* dbias;  // [B, H, Nk], likewise; null: not asked for
  const int32_t* cu_seqlens;  // [documents + 1], for documents
  int64_t documents;
  float scale;
  int32_t threads;
};
#endif

namespace sparsec_gradients {
namespace {

...

constexpr int HEADS = 16, KV_HEADS = 8, D = 128, DV = 128;
constexpr int QUERY_TILE = 64, KEY_TILE = 64;
constexpr int LANE_TILE = KEY_TILE;  // lies across vector lanes

...

// ---- Products of the rows of one tile with one panel.
typedef Split<QUERY_TILE> QuerySplit;

// s[r][lane] = the product of row[r] and x[..][lane], of N units, scaled; s has KEY_TILE columns.
template <int R, int N>
__attribute__((noinline)) void product_block(const operand (&x)[N][PANEL * DEPTH], const operand* const* row,
                                             float factor, float* s) {
  vec sum[R][VECS] = {};
#pragma GCC unroll 4
  for (int d = 0; d < N; ++d) {
    Operands::units y[VECS];
    EACH(v, VECS) y[v] = Operands::read(x[d] + v * LANES * DEPTH);
    EACH(r, R) EACH(v, VECS) sum[r][v] = Operands::add(sum[r][v], Operands::spread(row[r] + d * DEPTH), y[v]);
  }
  EACH(r, R) EACH(v, VECS) store(s + r * KEY_TILE + v * LANES, Operands::scaled(sum[r][v], factor));
}

template <int N>
inline void product(const operand (&x)[N][PANEL * DEPTH], const operand* const* row, int count, float factor,
                    float* s) {
  int n = 0;
  for (; n < minimum(count, QuerySplit::LARGE_END); n += QuerySplit::LARGE)
    product_block<QuerySplit::LARGE>(x, row + n, factor, s + n * KEY_TILE);
  for (; n < count; n += QuerySplit::SIZE) product_block<QuerySplit::SIZE>(x, row + n, factor, s + n * KEY_TILE);
}

// ---- The gradients that one panel of keys and the queries of one tile give each other.
constexpr int whole_vectors(int n) { return (n + LANES - 1) / LANES * LANES; }
constexpr int WIDE = whole_vectors(D);  // a row of dq

struct Queries {  // the queries of one tile, in order; ROWS more entries, so that every block is whole
  int count;
  bool finite;  // all queries and gradients; set where a mask is
  bool silent;  // some is: see `is_silent`
  const operand *q[QUERY_TILE + ROWS], *grad[QUERY_TILE + ROWS];  // `grad`: the gradient of the output
  const operand *const *q_across, *const *grad_across;  // the same in units across the queries
  float* dq[QUERY_TILE + ROWS];
  float lse[QUERY_TILE + ROWS], delta[QUERY_TILE + ROWS];
  int at[QUERY_TILE + ROWS];  // positions
};

struct Keys {  // units of keys of one tile: the number in it of their first, and their rows in whole vectors
  int count, lane[KEY_TILE / DEPTH];
  bool finite;  // all of the tile
  const operand* row[KEY_TILE / DEPTH];
};

struct Panel {
  operand k[units_of(D)][PANEL * DEPTH], v[units_of(DV)][PANEL * DEPTH];  // k as `Operands::scale` leaves it
  float dk[D][PANEL], dv[DV][PANEL];
  float factor;  // the score's scale
  ivec at[VECS];  // positions
  ivec present[VECS];  // whether there is a key
  vec dbias[VECS];  // of what the keys add to the scores of one query head
};

// to[r][d] += the product of the units t[r][lane] and row[d], summed over the keys, for V vectors of head dims from d
// on.
template <int R, int V>
__attribute__((noinline)) void gather_block(const Keys& keys, const operand* t, int d, float* const* to) {
  vec sum[R][V];
  EACH(r, R) EACH(v, V) sum[r][v] = load(to[r] + d + v * LANES);
  const int count = keys.count;
  for (int n = 0; n < count; ++n) {
    const operand *row = keys.row[n] + d * DEPTH, *unit = t + keys.lane[n];
    Operands::units x[V];
    EACH(v, V) x[v] = Operands::read(row + v * LANES * DEPTH);
    EACH(r, R) EACH(v, V) sum[r][v] = Operands::add(sum[r][v], Operands::spread(unit + r * KEY_TILE), x[v]);
  }
  EACH(r, R) EACH(v, V) store(to[r] + d + v * LANES, sum[r][v]);
}

template <int R>
inline void gather_rows(const Keys& keys, const operand* t, float* const* to) {
  int d = 0;
  for (; d + PANEL <= WIDE; d += PANEL) gather_block<R, VECS>(keys, t, d, to);
  for (; d < WIDE; d += LANES) gather_block<R, 1>(keys, t, d, to);
}

// dq of the queries, from the gradients t of their scores with the keys.
inline void gather(const Keys& keys, const operand* t, const Queries& queries) {
  int n = 0;
  for (; n < minimum(queries.count, QuerySplit::LARGE_END); n += QuerySplit::LARGE)
    gather_rows<QuerySplit::LARGE>(keys, t + n * KEY_TILE, queries.dq + n);
  for (; n < queries.count; n += QuerySplit::SIZE)
    gather_rows<QuerySplit::SIZE>(keys, t + n * KEY_TILE, queries.dq + n);
}

// The same where some keys of a panel are not finite: one has no part in the dq of a query whose mask is 0 there.
__attribute__((noinline, cold)) void gather_seen(const Keys& keys, const operand* t, const ivec (*mask)[VECS],
                                                 const Queries& queries) {
  for (int r = 0; r < queries.count; ++r)
    for (int n = 0; n < keys.count; ++n) {
      const int lane = keys.lane[n] % PANEL;
      int32_t of_lane[DEPTH];
      EACH(i, DEPTH) of_lane[i] = mask[r][(lane + i) / LANES][(lane + i) % LANES];
      const int32_t seen = Operands::seen(of_lane);
      if (!seen) continue;
      const Operands::units unit = Operands::spread(t + r * KEY_TILE + keys.lane[n]);
      for (int d = 0; d < WIDE; d += LANES) {
        const Operands::units x = Operands::masked(Operands::read(keys.row[n] + d * DEPTH), seen);
        store(queries.dq[r] + d, Operands::add(load(queries.dq[r] + d), unit, x));
      }
    }
}

// Turns the products q.k in s into weights, and the products grad.v in t into the gradients of q.k, both 0 where the
// mask is 0, and both in units across the queries; `ds` are those gradients in units across the keys, 0 where there is
// no key. The number of queries is even.
template <bool MASKED>
__attribute__((noinline)) void weigh(Panel& panel, const Queries& queries, Modifiers modifiers,
                                     const ivec (*mask)[VECS], float* s, float* t, operand* ds) {
  const vec lowest = splat(LOWEST_EXPONENT);
  vec more[VECS], dbias[VECS] = {};
  EACH(v, VECS) more[v] = of_keys(modifiers, panel.at[v]);
  operand *const weights = (operand*)s, *const gradients = (operand*)t;
  for (int n = 0; n < queries.count; n += 2, s += 2 * KEY_TILE, t += 2 * KEY_TILE) {
    vec p[2 * VECS];
    EACH(m, 2) EACH(v, VECS) p[m * VECS + v] = load(s + m * KEY_TILE + v * LANES);
    Modifiers::Kept<2 * VECS> kept;
    modifiers.forward(p, kept, panel.at, queries.at + n);
    EACH(m, 2) EACH(v, VECS) p[m * VECS + v] = added(p[m * VECS + v], more[v]) - queries.lse[n + m];
    exp2(p, lowest);
    vec gradient[2 * VECS];
    EACH(m, 2) EACH(v, VECS) {
      const int c = m * VECS + v;
      gradient[c] = p[c] * (load(t + m * KEY_TILE + v * LANES) - queries.delta[n + m]);
    }
    if constexpr (Modifiers::KEYS) EACH(m, 2) EACH(v, VECS) {
        const vec of_score = gradient[m * VECS + v];
        dbias[v] += MASKED ? (mask[n + m][v] ? of_score : vec{}) : of_score;
      }
    modifiers.backward(gradient, kept);
    EACH(m, 2) EACH(v, VECS) {
      const int c = m * VECS + v;
      if (MASKED) {
        p[c] = mask[n + m][v] ? p[c] : vec{};
        gradient[c] = mask[n + m][v] ? gradient[c] : vec{};
      } else if (DEPTH > 1) {
        gradient[c] = (vec)((ivec)gradient[c] & panel.present[v]);
      }
    }
    Operands::store_two<VECS>(p, weights + n * KEY_TILE, KEY_TILE);
    Operands::store_both<VECS>(gradient, gradients + n * KEY_TILE, ds + n * KEY_TILE, KEY_TILE);
  }
  if constexpr (Modifiers::KEYS) EACH(v, VECS) panel.dbias[v] += dbias[v];
}

// All of it but dq. `s` and `t` are scratch; `ds` as above.
template <bool MASKED>
inline void differentiate(Panel& panel, const Queries& queries, Modifiers modifiers, const ivec (*mask)[VECS], float* s,
                          float* t, operand* ds) {
  product(panel.k, queries.q, queries.count, panel.factor, s);
  product(panel.v, queries.grad, queries.count, 1.0f, t);
  weigh<MASKED>(panel, queries, modifiers, mask, s, t, ds);
  const int count = queries.count / DEPTH;
  const operand *const weights = (operand*)s, *const gradients = (operand*)t;
  if (!MASKED || queries.finite) {
    accumulate<KEY_TILE>(queries.grad_across, count, weights, panel.dv);
    accumulate<KEY_TILE>(queries.q_across, count, gradients, panel.dk);
  } else {
    accumulate_seen<KEY_TILE>(queries.grad_across, count, weights, mask, panel.dv);
    accumulate_seen<KEY_TILE>(queries.q_across, count, gradients, mask, panel.dk);
  }
}

...

constexpr int CHUNK = 64;

// ---- Tiles: one key tile of one key head, and a query tile that sees it in full or through a mask.
// CHUNK rows of q are set to zero, prepared and summed at a time.

// Whether a share can add up in the output: it is float32, and its rows are whole vectors.
constexpr bool IN_PLACE = sizeof(element) == sizeof(float) && WIDE == D;

// dq in float32, a matrix [B, H, Nq, WIDE] a share; a chunk of rows holds nothing before it is touched.
struct Shares {
  float *first, *others;  // the matrix of share 0, which may be the output; those of the rest
  uint8_t* touched;  // [count, chunks]
  int64_t count, apart, chunks;

  float* dq(int64_t share) const { return share == 0 ? first : others + (share - 1) * apart; }
};

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

...

// ---- Key tiles: keys across the lanes of panels, and the queries of one head that they meet.
struct Rows {  // of the queries, [B, H, Nq]
  float *lse, *delta;
};

// Zeros in place of keys, and of operands of a unit, that there are not.
inline void clear_keys(Work& w, int count) {
  if (count == KEY_TILE && D % DEPTH == 0 && DV % DEPTH == 0) return;
  std::memset(w.key, 0, sizeof w.key);
  std::memset(w.value, 0, sizeof w.value);
}

// Lays `count` keys from lane `first` on across the panels, whose rows w.key and w.value have.
void lay_keys(Work& w, int first, int count, float scale) {
  w.first_lane = first, w.last_lane = first + count - 1;
  for (int n = 0; n < KEY_TILE; ++n) w.key_row[n] = w.key[n];
  w.key_units = w.key_across.of(w.key_row, KEY_TILE);
  w.present.count = 0;
  for (int n = first / DEPTH; n <= w.last_lane / DEPTH; ++n) {
    w.present.lane[w.present.count] = n * DEPTH;
    w.present.row[w.present.count++] = w.key_units[n];
  }
  w.present.finite = all_finite<D>(w.key_row + first, count);
  const float factor = scale * Modifiers::UNIT;
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    to_panel(w.key[p * PANEL], WIDE, w.panel[p].k);
    Operands::scale(w.panel[p].k[0], units_of(D) * VECS, factor);
    w.panel[p].factor = factor;
    to_panel(w.value[p * PANEL], row_of(DV), w.panel[p].v);
    EACH(v, VECS) {
      const ivec lane = w.lane[v] + p * PANEL;
      w.panel[p].present[v] = (lane >= first) & (lane <= w.last_lane);
    }
    std::memset(w.panel[p].dk, 0, sizeof w.panel[p].dk);
    std::memset(w.panel[p].dv, 0, sizeof w.panel[p].dv);
  }
}

// Turns the sums of the panels into rows of w.dk and w.dv.
void take_keys(Work& w) {
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    from_panel(w.panel[p].dk, w.dk[p * PANEL], WIDE);
    from_panel(w.panel[p].dv, w.dv[p * PANEL], DV);
  }
}

// What the keys add to the scores of one query head: the sums of its gradient before the queries, and after them.
void start_bias(Work& w) {
  if constexpr (Modifiers::KEYS)
    for (int p = w.first_panel(); p <= w.last_panel(); ++p) EACH(v, VECS) w.panel[p].dbias[v] = vec{};
}

inline float bias_at(const Work& w, int lane) {
  return w.panel[lane / PANEL].dbias[lane % PANEL / LANES][lane % LANES];
}

void open_part(Work& w, const sparsec_backward_call& call, int64_t b, const Part& part) {
  w.origin = floor_div(part.q0, QUERY_TILE) * QUERY_TILE;
  w.begin = part.q0 - w.origin, w.end = part.q1 - w.origin, w.n_k = part.n_k;
  w.q_row = part.q_row, w.n_q = call.n_q;
  w.inputs = Inputs(call, b, part.q_row, part.k_row, part.n_k);
}

void open_head(Work& w, const sparsec_backward_call& call, const Rows& rows, const Shares& shares, int64_t share,
               int64_t b, int64_t h, const Part& part) {
  const int64_t row = (b * HEADS + h) * call.n_q;
  w.queries = matrix(call.q, call.q_stride, b, h, part.q_row);
  w.grads = matrix(call.grad_out, call.grad_out_stride, b, h, part.q_row);
  w.lse = rows.lse + row, w.delta = rows.delta + row, w.dq = shares.dq(share) + row * WIDE;
  w.touched = shares.touched + share * shares.chunks + (b * HEADS + h) * (shares.chunks / (call.batch * HEADS));
  w.modifiers = Modifiers(call, b, h, part.k_row);
}

// No keys are listed for all queries.
struct ColumnGradients {
  explicit ColumnGradients(const sparsec_backward_call&) {}
  bool ready() const { return true; }
  void run(Work&, const sparsec_backward_call&, const Rows&, const Shares&, int64_t, int64_t,
           const Tiling<sparsec_backward_call>&, int64_t, int64_t) const {}
  void add(int64_t, int64_t, int, float (*)[WIDE], float (*)[DV]) const {}
};

// Rows list no keys themselves.
constexpr int OWN_SHARES = 0;

struct OwnGradients {
  static constexpr int64_t tasks = 0;

  template <class Call>
  explicit OwnGradients(const Call&) {}
  bool ready() const { return true; }
  template <class Call>
  int run(const Call&, int64_t, const float*, const float*, float*) const {
    return 0;
  }
  template <class Keys, class Values>
  void add(int64_t, int64_t, int, Keys, Values) const {}
  void add_bias(int64_t, int64_t, int, int64_t, float*) const {}
};

// ---- Rows: what each query needs beside its tile, before the key tiles, and its dq, after them.
// Of rows first .. stop: the LSE in base 2 (+inf for an empty row, so that its weights are 0), and delta = grad_out.out
// - grad_lse, what every gradient of a score has subtracted. Both are +inf for a silent row (see `is_silent`).
void prepare(const sparsec_backward_call& call, int64_t b, int64_t h, int64_t first, int64_t stop, float* lse,
             float* delta) {
  const Matrix grad = matrix(call.grad_out, call.grad_out_stride, b, h, 0),
               out = matrix(call.out, call.out_stride, b, h, 0);
  const float* from = call.lse + b * call.lse_stride[0] + h * call.lse_stride[1];
  constexpr int WIDTH = whole_vectors(DV);
  for (int64_t n = first; n < stop; ++n) {
    alignas(64) float x[WIDTH] = {}, y[WIDTH] = {};
    load_rows<DV>(grad, n, 1, x);
    load_rows<DV>(out, n, 1, y);
    vec sum = {};
    for (int d = 0; d < WIDTH; d += LANES) sum += load(x + d) * load(y + d);
    float total = 0.0f;
    for (int lane = 0; lane < LANES; ++lane) total += sum[lane];
    const float value = from[n * call.lse_stride[2]] * LOG2E;
    lse[n] = value == -INF ? INF : value;
    const float of_lse =
        call.grad_lse == nullptr
            ? 0.0f
            : call.grad_lse[b * call.grad_lse_stride[0] + h * call.grad_lse_stride[1] + n * call.grad_lse_stride[2]];
    delta[n] = total - of_lse;
    if (total != total && of_lse == 0.0f && std::all_of(x, x + WIDTH, [](float each) { return each == 0.0f; }))
      lse[n] = delta[n] = INF;
  }
}

// dq of rows first .. stop of one chunk: what the shares that touched it have, in order, times the scale.
void sum_shares(const Shares& shares, int64_t chunk, int64_t first, int64_t stop, float scale, element* dq) {
  for (int64_t n = first; n < stop; ++n) {
    float total[D] = {};
    for (int64_t share = 0; share < shares.count; ++share) {
      const float* row = shares.dq(share) + n * WIDE;
      if (shares.touched[share * shares.chunks + chunk])
        for (int d = 0; d < D; ++d) total[d] += row[d];
    }
    for (int d = 0; d < D; ++d) dq[n * D + d] = narrow(total[d] * scale);
  }
}

// ---- Tasks: one share of the key tiles of one key head, computed whole by one thread.
// Enough for the threads of a machine, each long beside what a share costs; fixed, for they decide the order of sums.
constexpr int64_t TASKS = 32, TILES = 8, SHARES_BYTES = 256 << 20;

void load_keys(Work& w, const Matrix& k, const Matrix& v, int base, float scale) {
  const int first = w.j0 - base, count = w.j1 - w.j0 + 1;
  clear_keys(w, count);
  load_rows<D>(k, w.j0, count, w.key[first], WIDE);
  load_rows<DV>(v, w.j0, count, w.value[first], row_of(DV));
  lay_keys(w, first, count, scale);
  for (int p = w.first_panel(); p <= w.last_panel(); ++p)
    EACH(v, VECS) w.panel[p].at[v] = w.lane[v] + (base + p * PANEL);
}

// The first key is row `row` of all keys of the group.
void store_keys(Work& w, const OwnGradients& own, const ColumnGradients& listed, int64_t group, int64_t row,
                float scale, element* dk, element* dv) {
  const int first = w.first_lane, count = w.j1 - w.j0 + 1;
  take_keys(w);
  own.add(group, row, count, w.dk + first, w.dv + first);
  listed.add(group, row, count, w.dk + first, w.dv + first);
  for (int n = first; n < first + count; ++n, dk += D, dv += DV) {
    for (int d = 0; d < D; ++d) dk[d] = narrow(w.dk[n][d] * scale);
    for (int d = 0; d < DV; ++d) dv[d] = narrow(w.dv[n][d]);
  }
}

void add_bias(const Work& w, const sparsec_backward_call& call, int64_t b, int64_t h, int64_t k_row) {
  if constexpr (Modifiers::KEYS) {
    if (!call.dbias) return;
    float* to = call.dbias + (b * HEADS + h) * call.n_k + k_row;
    for (int j = w.j0; j <= w.j1; ++j) to[j] += bias_at(w, w.first_lane + j - w.j0);
  }
}

void run_tile(Work& w, const sparsec_backward_call& call, const OwnGradients& own, const ColumnGradients& listed,
              const Rows& rows, const Shares& shares, int64_t share, int64_t b, int64_t g, const Tile& tile) {
  const Part& part = tile.part;
  w.j0 = maximum(tile.base, part.begin);
  w.j1 = minimum(tile.base + KEY_TILE, part.end) - 1;
  open_part(w, call, b, part);
  load_keys(w, matrix(call.k, call.k_stride, b, g, part.k_row), matrix(call.v, call.v_stride, b, g, part.k_row),
            tile.base, call.scale);
  for (int64_t h = g * (HEADS / KV_HEADS); h < (g + 1) * (HEADS / KV_HEADS) && w.begin < w.end; ++h) {
    open_head(w, call, rows, shares, share, b, h, part);
    start_bias(w);
    visit(w, call.lists, int(h));
    add_bias(w, call, b, h, part.k_row);
  }
  const int64_t group = b * KV_HEADS + g, row = w.j0 + part.k_row, first = group * call.n_k + row;
  if constexpr (Modifiers::KEYS)
    for (int64_t n = 0; call.dbias && n < HEADS / KV_HEADS; ++n)
      own.add_bias(group, row, w.j1 - w.j0 + 1, n, call.dbias + (group * (HEADS / KV_HEADS) + n) * call.n_k + row);
  store_keys(w, own, listed, group, row, call.scale, (element*)call.dk + first * D, (element*)call.dv + first * DV);
}

int backward(const sparsec_backward_call& call) {
  const Tiling<sparsec_backward_call> tiling(call, KEY_TILE, true);
  const OwnGradients gathered(call);
  const ColumnGradients listed(call);
  if (!tiling.before || !gathered.ready() || !listed.ready()) return 1;
  const int64_t heads = call.batch * HEADS, groups = call.batch * KV_HEADS, tiles = tiling.count();
  const int64_t chunks = (call.n_q + CHUNK - 1) / CHUNK, apart = heads * call.n_q * WIDE;
  int64_t count = std::min((TASKS + groups - 1) / std::max<int64_t>(groups, 1), tiles / TILES);
  count = std::max<int64_t>(std::min(count, SHARES_BYTES / std::max<int64_t>(4 * apart, 1)), 1);
  const int64_t own = (count + OWN_SHARES - IN_PLACE) * apart;
  float* const scratch = static_cast<float*>(std::aligned_alloc(64, ((own + 2 * heads * call.n_q) / 16 + 1) * 64));
  uint8_t* const touched = static_cast<uint8_t*>(std::calloc((count + OWN_SHARES) * heads * chunks + 1, 1));
  if (scratch == nullptr || touched == nullptr) {
    std::free(touched);
    std::free(scratch);
    return 1;
  }
  const Shares shares = {IN_PLACE ? (float*)call.dq : scratch,
                         scratch + (IN_PLACE ? 0 : apart),
                         touched,
                         count + OWN_SHARES,
                         apart,
                         heads * chunks};
  std::fill(touched + count * heads * chunks, touched + (count + OWN_SHARES) * heads * chunks, uint8_t(1));
  float *const lse = scratch + own, *const delta = lse + heads * call.n_q;
  int failed = 0;
#pragma omp parallel num_threads(call.threads) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for
    for (int64_t task = 0; task < heads * chunks; ++task) {
      const int64_t head = task / chunks, first = task % chunks * CHUNK, row = head * call.n_q;
      prepare(call, head / HEADS, head % HEADS, first, std::min(first + CHUNK, call.n_q), lse + row, delta + row);
    }
    if constexpr (Modifiers::ROW_GRADIENTS) {
#pragma omp for
      for (int64_t h = 0; h < HEADS; ++h) Modifiers(call, 0, h, 0).of_rows(call, h, lse, delta);
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < gathered.tasks; ++task)
      failed |= gathered.run(call, task, lse, delta, shares.dq(count));
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < groups * count; ++task) {  // the first keys first: causal, most queries see them
      const int64_t share = task / groups, group = task % groups;
      const int64_t first = tiles * share / count, stop = tiles * (share + 1) / count;
      if (w) listed.run(*w, call, {lse, delta}, shares, share, group, tiling, first, stop);
      for (int64_t n = first; n < stop && w; ++n)
        run_tile(*w, call, gathered, listed, {lse, delta}, shares, share, group / KV_HEADS, group % KV_HEADS,
                 tiling[n]);
    }
#pragma omp for
    for (int64_t task = 0; task < heads * chunks; ++task) {
      const int64_t first = task / chunks * call.n_q + task % chunks * CHUNK;
      const int64_t stop = std::min(first + CHUNK, (task / chunks + 1) * call.n_q);
      sum_shares(shares, task, first, stop, call.scale, (element*)call.dq);
    }
    std::free(w);
  }
  std::free(touched);
  std::free(scratch);
  return failed;
}

// In the library, for its manifest.
__attribute__((used)) const struct {
  char entry[48];
  Name name;
} MICRO_KERNEL = {"sparsec micro-kernel of backward", Operands::NAME};

// ---- Head classes: which query tiles the keys j0 .. j1 visit, in full or through a mask.
// line 9: window(16b) & line 7: causal
// line 9: stride(16b) & line 7: causal
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int j0 = w.j0, j1 = w.j1, nk = w.n_k, base = w.origin, begin = w.begin, end = w.end;
  static const int c0_of_head[HEADS] = {0, 0, 15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9};
  [[maybe_unused]] const int c0 = c0_of_head[head];
  const int lo0 = maximum(begin, j0 - base);
  const int hi0 = maximum(minimum(end, (j0 >> 6) * 64 + 1024 - base), 0);
  const int from0 = minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((end + 63) >> 6), (((j0 >> 6) * 64 + 1024 - base + 63) >> 6)), 0) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))));
  const int from1 = ((((c0 * 64 + 63 - j0) & 1023) < j1 - j0 + 64) ? minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6)) : 0);
  const int to1 = maximum(from1, ((((c0 * 64 + 63 - j0) & 1023) < j1 - j0 + 64) ? ((lo0 < end) ? ((end + 63) >> 6) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))) : 0));
  const int stop0 = maximum(from0, to0);
  const int start0 = maximum(from1, stop0);
  const int stop1 = maximum(start0, to1);
  const int lo1 = maximum(begin, j1 - base);
  const int sure_hi0 = maximum(lo1, hi0);
  const int sure_lo0 = ((((j0 - c0 * 64) & 1023) + (j1 - j0) < 64) ? lo1 : 0);
  const int sure_hi1 = ((((j0 - c0 * 64) & 1023) + (j1 - j0) < 64) ? maximum(lo1, end) : 0);
  const int full_from0 = maximum(((begin + 63) >> 6), ((j1 - base + 63) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum((begin >> 6), ((j1 - base) >> 6)), maximum(minimum((end >> 6), (((j0 >> 6) * 64 + 1024 - base) >> 6)), 0)));
  const int full_from1 = maximum(((((sure_lo0 < sure_hi0 + 1) ? lo1 : sure_lo0) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from1, maximum(maximum(maximum((begin >> 6), ((j1 - base) >> 6)), maximum(minimum((end >> 6), (((j0 >> 6) * 64 + 1024 - base) >> 6)), 0)), (sure_hi1 >> 6)));
  const int count0 = maximum(full_to0 - full_from0, 0);
  const int count1 = maximum(full_to1 - full_from1, 0);
  const int count2 = maximum(minimum(stop0, full_from0) - from0, 0);
  const int at0 = maximum(from0, full_to0);
  const int count3 = maximum(minimum(stop0, full_from1) - at0, 0);
  const int at1 = maximum(from0, full_to1);
  const int count4 = maximum(stop0 - at1, 0);
  const int count5 = maximum(minimum(stop1, full_from0) - start0, 0);
  const int at2 = maximum(start0, full_to0);
  const int count6 = maximum(minimum(stop1, full_from1) - at2, 0);
  const int at3 = maximum(start0, full_to1);
  const int count7 = maximum(stop1 - at3, 0);
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return (((j < i + 1) & (i < (j >> 6) * 64 + 1024)) | ((j < i + 1) & ((((j >> 6) - c0) & 15) < 1))); };
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count0; n < count; ++n) {
    const int tile = full_from0 + n;
    attend_full(w, tile);
  }
  // line 9: stride(16b) & line 7: causal
  for (int n = 0, count = count1; n < count; ++n) {
    const int tile = full_from1 + n;
    attend_full(w, tile);
  }
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count2; n < count; ++n) {
    const int tile = from0 + n;
    attend_masked(w, tile, live);
  }
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count3; n < count; ++n) {
    const int tile = at0 + n;
    attend_masked(w, tile, live);
  }
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count4; n < count; ++n) {
    const int tile = at1 + n;
    attend_masked(w, tile, live);
  }
  // line 9: stride(16b) & line 7: causal
  for (int n = 0, count = count5; n < count; ++n) {
    const int tile = start0 + n;
    attend_masked(w, tile, live);
  }
  // line 9: stride(16b) & line 7: causal
  for (int n = 0, count = count6; n < count; ++n) {
    const int tile = at2 + n;
    attend_masked(w, tile, live);
  }
  // line 9: stride(16b) & line 7: causal
  for (int n = 0, count = count7; n < count; ++n) {
    const int tile = at3 + n;
    attend_masked(w, tile, live);
  }
}

...

}  // namespace
}  // namespace sparsec_gradients

// Returns 0, or 1 when memory ran out.
extern "C" int sparsec_backward(const sparsec_backward_call* call) { return sparsec_gradients::backward(*call); }
