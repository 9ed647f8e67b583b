...

constexpr int LOOKUPS = 4;  // of what the pattern asks inputs

...

// ---- Inputs: what a call's tensors say of the pairs (i, j) of one query head, and of the tiles of pairs.
// A tensor may hold any numbers: none becomes an address before it was compared with what there is.
struct Inputs {
  static constexpr bool ASKED = true;
  const sparsec_lookup* lookups;  // two a test
  int64_t b, q_row, k_row;  // the sequence; the rows of queries and keys at position 0
  int first_query, n_k;  // the position of the call's first query; the keys that the pattern reckons with
  int64_t entry = 0;  // of a list of kept keys, the first of those at hand

  template <class Call>
  Inputs(const Call& call, int64_t b, int64_t q_row, int64_t k_row, int n_k, int first_query)
      : lookups(call.inputs), b(b), q_row(q_row), k_row(k_row), first_query(first_query), n_k(n_k) {}

  template <class Call>
  Inputs(const Call& call, int64_t b, int64_t q_row, int64_t k_row, int n_k)
      : Inputs(call, b, q_row, k_row, n_k, int(k_row - q_row)) {}
};

// Whether some lookup tells query heads of a KV group apart.
template <class Call>
bool tells_heads_apart(const Call& call) {
  bool found = false;
  for (int n = 0; n < LOOKUPS; ++n) found |= call.inputs[n].heads > KV_HEADS;
  return found;
}

struct Pairs {  // queries i0 .. i1 with keys j0 .. j1, all inclusive
  int i0, i1, j0, j1;
};

// What lookup `n` has for a query head.
template <class Number>
const Number* of_head(const Inputs& inputs, int n, int head) {
  const sparsec_lookup& from = inputs.lookups[n];
  const int64_t at = (from.batch > 1 ? inputs.b * from.heads : 0) + head * from.heads / HEADS;
  return (const Number*)from.data + at * from.rows * from.columns;
}

// a // N.
template <int N, class A>
inline A quotient(A a) {
  if constexpr (N == 1) return a;
  else if constexpr ((N & (N - 1)) == 0) return a >> __builtin_ctz(N);
  else return floor_div(a, N);
}

inline bool within(int n, int64_t count) { return n >= 0 && n < count; }

inline ivec mask_of(bool x) { return splat(truth(x)); }
inline ivec mask_of(ivec x) { return x; }

// The mask of `test(x)`, lane by lane.
template <class Test>
inline ivec by_lane(ivec x, const Test& test) {
  int32_t from[LANES], to[LANES];
  std::memcpy(from, &x, sizeof x);
  for (int n = 0; n < LANES; ++n) to[n] = truth(test(from[n]));
  std::memcpy(&x, to, sizeof x);
  return x;
}
... -2

// ---- Lengths: one number, not negative, that bounds keys, queries or distances.
inline int length_of(const Inputs& inputs, int n, int head) { return *of_head<int32_t>(inputs, n, head); }

struct KeyBelow {  // j < length
  int length;
  KeyBelow(const Inputs& inputs, int n, int head) : length(length_of(inputs, n, head)) {}
  template <class I, class J>
  ivec pair(I, J j) const {
    return mask_of(j < length);
  }
  bool some(const Pairs& at) const { return at.j0 < length; }
  bool every(const Pairs& at) const { return at.j1 < length; }
};

struct QueryBelow {  // i < length
  int length;
  QueryBelow(const Inputs& inputs, int n, int head) : length(length_of(inputs, n, head)) {}
  template <class I, class J>
  ivec pair(I i, J) const {
    return mask_of(i < length);
  }
  bool some(const Pairs& at) const { return at.i0 < length; }
  bool every(const Pairs& at) const { return at.i1 < length; }
};

struct Near {  // i - j < length, and length is not 0
  int length;
  Near(const Inputs& inputs, int n, int head) : length(length_of(inputs, n, head)) {}
  template <class I, class J>
  ivec pair(I i, J j) const {
    return mask_of(i - j < length) & truth(length > 0);
  }
  bool some(const Pairs& at) const { return length > 0 && at.i0 - at.j1 < length; }
  bool every(const Pairs& at) const { return length > 0 && at.i1 - at.j0 < length; }
};

// ---- Lists of rows: j // WIDTH is in the list of query i.
struct Entries {  // of one row, int64 or int32
  const void* entry;
  int64_t count;
  bool wide;

  // Entry n, or -1 where none of `known` is it.
  int at(int64_t n, int known) const {
    const int64_t number = wide ? ((const int64_t*)entry)[n] : ((const int32_t*)entry)[n];
    return (number >= 0) & (number < known) ? int(number) : -1;
  }
... -3
};

template <int WIDTH>
struct Lists {
  const char* lists;
  const int32_t* ordered;  // where pairs are asked
  int64_t rows, columns, q_row;
  bool wide;  // whether lists are int64

  Lists(const Inputs& inputs, int n, int head)
      : lists(inputs.lookups[n].first ? (const char*)of_head<int64_t>(inputs, n, head)
                                      : (const char*)of_head<int32_t>(inputs, n, head)),
        ordered(of_head<int32_t>(inputs, n + 1, head)),
        rows(inputs.lookups[n].rows),
        columns(inputs.lookups[n].columns),
        q_row(inputs.q_row),
        wide(inputs.lookups[n].first) {}

  // Entries of row i; none of a row that there is not.
  Entries own(int i) const {
    const int64_t row = i + q_row, size = wide ? sizeof(int64_t) : sizeof(int32_t);
    if (row < 0 || row >= rows) return {nullptr, 0, wide};
    return {lists + row * columns * size, columns, wide};
  }
  bool has(int i, int number) const {
    const int64_t row = i + q_row;
    if (row < 0 || row >= rows) return false;
    return std::binary_search(ordered + row * columns, ordered + (row + 1) * columns, number);
  }
  ivec pair(ivec i, int j) const {
    return by_lane(i, [this, j](int each) { return has(each, quotient<WIDTH>(j)); });
  }
  ivec pair(int i, ivec j) const {
    return by_lane(quotient<WIDTH>(j), [this, i](int each) { return has(i, each); });
  }
  bool some(const Pairs&) const { return true; }
  bool every(const Pairs&) const { return false; }
};

...

// Points at the keys and values at positions at[0 .. count - 1] as they are stored; their head dim is contiguous.
inline void point_rows(const Source& from, int, int, const int* at, int count, int*, const element** key,
                       const element** value) {
  for (int n = 0; n < count; ++n) {
    key[n] = from.k.data + at[n] * from.k.row;
    value[n] = from.v.data + at[n] * from.v.row;
  }
}

...

// ---- Keys that rows list themselves: before the tiles of a head, the soft-max of each row over its own keys.
constexpr int TOGETHER = SHARE;  // heads of one task, which read the keys of their lists once

struct Gathered {  // what the rows of a query tile have seen, of each head of a KV group
  Row row;
  float o[SHARE][QUERY_TILE][ValueSteps::WIDE], peak[SHARE][QUERY_TILE], total[SHARE][QUERY_TILE];
};

// Printed for the pattern: visits the keys that the row lists itself.
void visit_own(Row& w, const sparsec_list* lists, int head);

// For the rows of w's tile and the TOGETHER heads from `head` on. `q_row`, `k_row`: the rows of q and k at position 0.
template <class Work, class Call>
void gather_rows(Work& w, const Call& call, int64_t b, int64_t head, int64_t q_row, int64_t k_row) {
  Gathered& to = w.gathered;
  Row& row = to.row;
  row.source = w.source, row.inputs = w.inputs;
  row.begin = w.begin, row.end = w.end, row.n_k = w.n_k;
  row.turn = 0, row.first = 0, row.stop = INT32_MAX;
  for (int n = 0; n < PANEL; ++n) row.lane[n / LANES][n % LANES] = n;
  const bool alone = each_alone(call);
  for (const Pack& pack : PACKS)
    for (int n = 0; n < pack.size && pack.group == head / SHARE; n += row.pack) {
      row.heads = pack.heads + n, row.pack = alone ? 1 : pack.size;
      for (int i = w.i0; i <= w.i1; ++i) {
        row.i0 = row.i1 = i;
        load_query(row, call, b, i + q_row, k_row);
        for (int r = 0; r < row.pack; ++r) row.modifiers[r].start(row.peak[r], row.total[r]);
        visit_own(row, call.lists, row.heads[0]);
        attend(row);
        for (int r = 0; r < row.pack; ++r) {
          const int64_t h = row.heads[r] - head;
          std::copy(row.o[r], row.o[r] + ValueSteps::WIDE, to.o[h][i - w.base]);
          to.peak[h][i - w.base] = row.peak[r], to.total[h][i - w.base] = row.total[r];
        }
...

// Starts the panels of the tile, which hold its queries, with what head `h` of the task has seen.
template <class Work>
void resume(Work& w, int64_t h) {
  const Gathered& from = w.gathered;
  for (int i = w.i0; i <= w.i1; ++i) {
    const int n = i - w.base, v = n % PANEL / LANES, lane = n % LANES;
    for (int d = 0; d < DV; ++d) w.rows[n][d] = from.o[h][n][place(d)];
    w.panel[n / PANEL].peak[v][lane] = from.peak[h][n];
    w.panel[n / PANEL].total[v][lane] = from.total[h][n];
  }
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) to_panel(w.rows[p * PANEL], WIDEST, w.panel[p].o);
}

...

// ---- Lists of rows: the keys that row i lists itself.
// The keys n .. n + LANES - 1 of those that `own` lists, WIDTH an entry, with n a multiple of LANES; below 0 for one
// that there is not. `lane`: 0, 1, ..., LANES - 1.
template <int WIDTH>
inline ivec own_keys(const Entries& own, int64_t n, int n_k, ivec lane) {
  const int known = quotient<WIDTH>(n_k + WIDTH - 1);  // entries from 0 to here
  if constexpr (WIDTH % LANES == 0) {
    const int entry = own.at(quotient<WIDTH>(n), known);
    return entry < 0 ? splat(-1) : lane + (entry * WIDTH + int(n % WIDTH));
  }
  int32_t key[LANES];
  for (int lane = 0; lane < LANES; ++lane) {
    const int64_t at = n + lane, last = own.count * WIDTH - 1;
    const int entry = own.at(quotient<WIDTH>(std::min(at, last)), known);
    key[lane] = (at <= last) & (entry >= 0) ? entry * WIDTH + int(at % WIDTH) : -1;
  }
  ivec keys;
  std::memcpy(&keys, key, sizeof keys);
  return keys;
}

// `live(i, j)` is the mask of keys j for row i; as many keys as a tile has are one turn.
template <class Row, int WIDTH, class Live>
inline void attend_own(Row& w, const Lists<WIDTH>& lists, const Live& live) {
  const Entries own = lists.own(w.i0);
  for (int64_t first = 0, stop = own.count * WIDTH; first < stop; first += KEY_TILE) {
    if (!takes(w)) continue;
    for (int64_t n = first; n < std::min<int64_t>(first + KEY_TILE, stop); n += LANES) {
      const ivec j = own_keys<WIDTH>(own, n, w.n_k, w.lane[0]);
      add_seen(w, j, live(w.i0, j) & (j >= w.begin) & (j < w.end) & keeps(w.modifiers[0], j));
    }
... -1
  }
}

...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 8: rows(..input0) & line 7: causal
...
  const int lo0 = maximum(0, (i0 >> 4) * 16);
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, ((i0 >> 4) * 16 >> 6)), (nk >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : minimum(maximum(0, ((i0 >> 4) * 16 >> 6)), (nk >> 6))));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, (((i1 >> 4) * 16 + 63) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum(0, ((i1 >> 4) * 16 >> 6)), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0)));
  ...
  const QueryBelow picked_0(w.inputs, 0, head);
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return (((j < i + 1) & picked_0.pair(i, j)) | (((i >> 4) * 16 < j + 1) & (j < i + 1))); };
  ...
  for (int n = 0, count = to1; n < count; ++n) {
    const int tile = n;
    const Pairs here = {i0, i1, maximum(tile * KEY_TILE, begin), minimum(tile * KEY_TILE + KEY_TILE, end) - 1};
    if (!(((((0 < tile + 1) & (tile < full_to1)) & picked_0.every(here)) & !((from0 < tile + 1) & (tile < stop0))))) continue;
  ...
  // line 8: rows(..input0) & line 7: causal
  for (int n = 0, count = to1; n < count; ++n) {
    const int tile = n;
    const Pairs here = {i0, i1, maximum(tile * KEY_TILE, begin), minimum(tile * KEY_TILE + KEY_TILE, end) - 1};
    if (!((((((0 < tile + 1) & (tile < to1)) & picked_0.some(here)) & !(((0 < tile + 1) & (tile < full_to1)) & picked_0.every(here))) & !((from0 < tile + 1) & (tile < stop0))))) continue;
    attend_masked(w, tile, live);
  }
}

...

// ---- Head classes: which keys a row lists itself.
void visit_own_0(Row& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, nk = w.n_k;
  const QueryBelow picked_0(w.inputs, 0, head);
  const Lists<16> picked_1(w.inputs, 2, head);
  // line 8: input1 & line 7: causal
  attend_own(w, picked_1, [&]([[maybe_unused]] int i, [[maybe_unused]] ivec j) -> ivec { return ((j < i + 1) & ~(((j < i + 1) & picked_0.pair(i, j)) | (((i >> 4) * 16 < j + 1) & (j < i + 1)))); });
}

void visit_own(Row& w, const sparsec_list* lists, int head) {
  static const int class_of_head[HEADS] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  switch (class_of_head[head]) {
    case 0: visit_own_0(w, lists, head); break;
  }
}

...
