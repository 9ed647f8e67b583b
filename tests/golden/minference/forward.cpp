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

// ---- Picked numbers of pairs, by prefix counts: of a range of numbers one difference says how many are picked.
template <int WIDTH>
struct OfColumn {  // j // WIDTH
  template <class I, class J>
  static J number(I, J j) {
    return quotient<WIDTH>(j);
  }
  static int least(const Pairs& at) { return quotient<WIDTH>(at.j0); }
  static int most(const Pairs& at) { return quotient<WIDTH>(at.j1); }
};

template <int SIZE>
struct OfDistance {  // i // SIZE - j // SIZE
  template <class I, class J>
  static ivec number(I i, J j) {
    return quotient<SIZE>(i) - quotient<SIZE>(j);
  }
  static int least(const Pairs& at) { return quotient<SIZE>(at.i0) - quotient<SIZE>(at.j1); }
  static int most(const Pairs& at) { return quotient<SIZE>(at.i1) - quotient<SIZE>(at.j0); }
};

template <int HEIGHT>
struct OfTile {  // i // HEIGHT * HEIGHT - j
  template <class I, class J>
  static ivec number(I i, J j) {
    return quotient<HEIGHT>(i) * HEIGHT - j;
  }
  static int least(const Pairs& at) { return quotient<HEIGHT>(at.i0) * HEIGHT - at.j1; }
  static int most(const Pairs& at) { return quotient<HEIGHT>(at.i1) * HEIGHT - at.j0; }
};

template <class Of>
struct Counted {
  const int32_t* before;  // before[n]: how many of the first n numbers are picked
  int first, count;  // the first of `count` numbers

  Counted(const Inputs& inputs, int n, int head) : Counted(inputs, n, head, int(inputs.lookups[n].first)) {}
  Counted(const Inputs& inputs, int n, int head, int first)
      : before(of_head<int32_t>(inputs, n, head)), first(first), count(int(inputs.lookups[n].columns) - 1) {}

  bool has(int number) const {
    const int at = minimum(maximum(number - first, 0), count), next = minimum(at + 1, count);
    return (number >= first) & (before[next] > before[at]);
  }
  ivec has(ivec number) const {
    return by_lane(number, [this](int each) { return has(each); });
  }
  int picked(int least, int most) const {
    const int start = maximum(least - first, 0), stop = minimum(most - first + 1, count);
    return start < stop ? before[stop] - before[start] : 0;
  }

  template <class I, class J>
  ivec pair(I i, J j) const {
    return mask_of(has(Of::number(i, j)));
  }
  bool some(const Pairs& at) const { return picked(Of::least(at), Of::most(at)) > 0; }
  bool every(const Pairs& at) const {
    const int least = Of::least(at), most = Of::most(at);
    return picked(least, most) == most - least + 1;
  }
};

// Key j is marked, by its row.
struct Marked : Counted<OfColumn<1>> {
  Marked(const Inputs& inputs, int n, int head) : Counted(inputs, n, head, -int(inputs.k_row)) {}
};

...

// ---- Keys that an input lists for all queries, each once, in ascending order.
struct Columns {
  Counted<OfColumn<1>> marks;
  const int32_t* key;
  int count;

  Columns(const Inputs& inputs, int n, int head)
      : marks(inputs, n, head), key(of_head<int32_t>(inputs, n + 1, head)), count(int(inputs.lookups[n + 1].columns)) {}

  // How many of them come before key j.
  int before(int j) const { return minimum(maximum(marks.before[minimum(maximum(j, 0), marks.count)], 0), count); }

  // Those of numbers first .. stop - 1, KEY_TILE at most, that are keys begin .. end - 1, at `at`; returns how many.
  int take(int first, int stop, int begin, int end, int* at) const {
    int found = 0;
    for (int n = first; n < minimum(first + KEY_TILE, stop); ++n) {
      at[found] = key[n];
      found += (key[n] >= begin) & (key[n] < end);
    }
    return found;
  }

  // Those of LANES numbers from `first` on that come before number `stop`; below 0 in place of the others.
  ivec lanes(int first, int stop) const {
    ivec keys = splat(-1);
    std::memcpy(&keys, key + first, minimum(LANES, stop - first) * sizeof(int32_t));
    return keys;
  }
};

// ---- Listed keys for the rows of a query tile, KEY_TILE at a time, as one tile has them.
// Those of keys from .. to - 1; `live(i, j)` is the mask of rows i for key j.
template <class Live>
__attribute__((noinline)) void attend_columns(Work& w, const Columns& columns, int from, int to, const Live& live) {
  const int stop = columns.before(minimum(to, w.end));
  for (int first = columns.before(maximum(from, w.begin)); first < stop; first += KEY_TILE) {
    w.tile.count = columns.take(first, stop, w.begin, w.end, w.tile.at);
    for (int n = 0; n < w.tile.count; ++n)
      point_tile(w.source, w.n_k, w.tile.at[n], 1, w.key + n, w.value + n, w.tile.key + n, w.tile.value + n);
    attend_seen(w, [&w](int n) { return w.tile.at[n]; }, live);
  }
}

...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 8: input0 & line 7: causal
...
  const Counted<OfTile<64>> picked_1(w.inputs, 2, head);
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((j < i + 1) & picked_1.pair(i, j)); };
  // line 8: input1 & line 7: causal
  for (int n = 0, count = to0; n < count; ++n) {
    const int tile = n;
    const Pairs here = {i0, i1, maximum(tile * KEY_TILE, begin), minimum(tile * KEY_TILE + KEY_TILE, end) - 1};
    if (!((((0 < tile + 1) & (tile < full_to0)) & picked_1.every(here)))) continue;
  ...
  for (int n = 0, count = to0; n < count; ++n) {
    const int tile = n;
    const Pairs here = {i0, i1, maximum(tile * KEY_TILE, begin), minimum(tile * KEY_TILE + KEY_TILE, end) - 1};
    if (!(((((0 < tile + 1) & (tile < to0)) & picked_1.some(here)) & !(((0 < tile + 1) & (tile < full_to0)) & picked_1.every(here))))) continue;
    attend_masked(w, tile, live);
  }
  // line 8: input0 & line 7: causal
  attend_columns(w, Columns(w.inputs, 0, head), 0, hi0, [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec {
    return ((j < i + 1) & ~((j < i + 1) & picked_1.pair(i, j)));
  });
}

...
