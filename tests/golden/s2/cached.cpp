// Sparse attention over a cache: chunks of queries, and the storing of keys.
//
// Chunks are the forward kernel with two sources of keys: those before a sequence's length are at their slots in the
// cache, the others in the call's own tensors. One task is one query tile of one head of one sequence.
//
// Here: 16 query heads on 8 key heads, head dim 128, float32.
// Build: c++ -std=c++17 -O3 -march=native -fopenmp -shared -fPIC, without -ffast-math (infinities carry meaning).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

...

#ifndef SPARSEC_MARKS
#define SPARSEC_MARKS
struct sparsec_marks {  // what an input says of the keys of a call, [batch, heads, n]; batch and heads may be 1
  const uint8_t* data;
  int64_t stride[3];
  int64_t batch;
  int64_t heads;
};
#endif

#ifndef SPARSEC_KEPT
#define SPARSEC_KEPT
struct sparsec_kept {  // lists of kept keys
  void* keys;  // [rows, D]
  void* values;  // [rows, DV]
  int32_t* entries;  // [1 + words, rows]: positions, then marks
  int64_t rows;
  int64_t room;  // rows that lists may have: those after it may be read
  int32_t* lists;  // [B, G, 3]: base, capacity and count
  const sparsec_marks* marks;  // of each input of kind tokens
};
#endif

#ifndef SPARSEC_CACHED_CALL
#define SPARSEC_CACHED_CALL
struct sparsec_cached_call {  // strides in elements; q [B, H, N, D], k [B, G, N, D]; out, v: DV for D; lse [B, H, N]
  const void* q;
  const void* k;
  const void* v;
  void* keys;  // the cache, [B, slots, D]
  void* values;  // likewise, [B, slots, DV]
  void* out;  // contiguous, and so are all that have no stride here
  float* lse;
  int64_t q_stride[4];
  int64_t k_stride[4];
  int64_t v_stride[4];
  int64_t batch;
  int64_t n;
  int64_t slots;
  int64_t longest;  // the most tokens of a sequence after the call: tables of draws end there
  int32_t* lengths;  // [B]: tokens in the cache
  const int32_t* counts;  // [B]: those among the call's n, which are the last; null: n each
  int64_t* state;  // [2, B], or null: once stored, tokens are counted here and in lengths
  const int32_t* places;  // [G, regions, 2]: base and capacity of a group's regions
  const sparsec_kept* kept;  // null for a cache without lists of kept keys
  float* mass;  // [B, H, mass_keys], to which the mass of keys is added; null: not asked for
  int64_t mass_keys;
  const uint8_t* mass_groups;  // [G], which groups get it; null: all
  const sparsec_list* lists;
  const sparsec_lookup* inputs;  // two for each test of an input
  const float* sink;  // [H], for a learned sink
  const float* key_bias;  // [b, x, keys], for a key bias; of b = 1 the stride is 0
  int64_t bias_heads;
  int64_t bias_keys;
  int64_t bias_stride[3];
  float scale;
  int32_t threads;
};
#endif

namespace sparsec_chunk {
namespace {

constexpr int HEADS = 16, KV_HEADS = 8, D = 128, DV = 128;
constexpr int QUERY_TILE = 64, KEY_TILE = 64;
constexpr int LANE_TILE = QUERY_TILE;  // lies across vector lanes
constexpr int REGIONS = 2;  // of a KV group in the table of places

...

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
Matrix arena(const void* data, const sparsec_cached_call& call, int64_t b) {
  return {(const element*)data + b * call.slots * N, N, 1};
}

// Printed for the pattern: slot[n] is that of key[n], negative where it has none. `places`: of the head's group;
// `stop`: the number of keys once those of the call are stored.
void slots_of_keys(const int32_t* places, int head, int stop, const int* key, int count, int* slot);

...

const operand NOTHING[row_of(WIDEST)] = {};  // in place of a key that is not held: it is dead, and is not read

// ---- Where the keys and values of a tile lie: in the cache, or those of the call in its own tensors.
struct Source {
  Matrix k, v;  // of the call; rows are positions
  Matrix keys, values;  // of the cache; rows are slots
  const int32_t* places;  // of the head's group
  int head, length;  // keys before `length` are in the cache
  const element *listed_keys, *listed_values;  // of all lists of kept keys
  bool listed;  // whether slots are entries of lists
};

// For head h of sequence b; row `first` is at position 0.
Source source_of(const sparsec_cached_call& call, int64_t b, int64_t h, int64_t first) {
  const int64_t g = h / (HEADS / KV_HEADS);
  return {matrix(call.k, call.k_stride, b, g, first),
          matrix(call.v, call.v_stride, b, g, first),
          arena<D>(call.keys, call, b),
          arena<DV>(call.values, call, b),
          places_of(call, g),
          int(h),
          call.lengths[b],
          call.kept ? (const element*)call.kept->keys : nullptr,
          call.kept ? (const element*)call.kept->values : nullptr,
          false};
}

// Points at one row of a matrix, as `point` does.
template <int N>
inline void point_at(const Matrix& m, int row, operand (*packed)[row_of(N)], const operand** to) {
  if (row < 0) *to = NOTHING;
  else point<N>(m, row, 1, packed, to);
}

// Points at keys and values first .. first + count of `stop`, in place or in `key` and `value`.
inline void point_tile(const Source& from, int stop, int first, int count, operand (*key)[row_of(D)],
                       operand (*value)[row_of(DV)], const operand** keys, const operand** values) {
  int number[KEY_TILE], slot[KEY_TILE];
  for (int n = 0; n < count; ++n) number[n] = first + n;
  slots_of_keys(from.places, from.head, stop, number, count, slot);
  for (int n = 0; n < count; ++n) {
    const bool old = number[n] < from.length;
    const int row = old ? slot[n] : number[n];
    point_at<D>(old ? from.keys : from.k, row, key + n, keys + n);
    point_at<DV>(old ? from.values : from.v, row, value + n, values + n);
  }
}

...

// ---- Tasks: every query tile of every head of every sequence, the longest rows first.
// The n-th query tile from the end, if the sequence has it; with the last one, the padding before its rows.
// Of TOGETHER heads from `head` on.
void run_task(Work& w, const sparsec_cached_call& call, int64_t b, int64_t head, int n) {
  const int length = call.lengths[b], stop = length + int(count_of(call, b));
  const int64_t first = call.n - stop;  // the row of position 0
  element* out = (element*)call.out + (b * HEADS + head) * call.n * DV;
  float* lse = call.lse + (b * HEADS + head) * call.n;
  for (int64_t h = 0; h < TOGETHER && n == 0; ++h) {
    std::fill(out + h * call.n * DV, out + (h * call.n + first + length) * DV, element(0));
    std::fill(lse + h * call.n, lse + h * call.n + first + length, -INF);
  }
  w.base = (floor_div(stop - 1, QUERY_TILE) - n) * QUERY_TILE;
  w.i0 = maximum(w.base, length);
  w.i1 = minimum(w.base + QUERY_TILE, stop) - 1;
  if (w.i1 < w.i0) return;
  w.begin = 0, w.end = stop, w.n_k = stop;
  w.source = source_of(call, b, head, first);
  w.inputs = Inputs(call, b, first, 0, stop);
  gather_rows(w, call, b, head, first, 0);
  for (int64_t h = head; h < head + TOGETHER; ++h) {
    w.source = source_of(call, b, h, first);
    w.modifiers = Modifiers(call, b, h, 0);
    load_queries(w, matrix(call.q, call.q_stride, b, h, first), call.scale);
    resume(w, h - head);
    visit(w, call.lists, int(h));
    const int64_t r = (h - head) * call.n + w.i0 + first;
    finish(w, out + r * DV, DV, 1, lse + r, 1);
  }
}

int attend_chunk(const sparsec_cached_call& call) {
  if (!sound(call)) return 2;
  const int64_t tiles = (call.n + 2 * QUERY_TILE - 2) / QUERY_TILE;  // that n positions in a row may touch
  const int64_t heads = HEADS / TOGETHER, tasks = call.batch * heads * tiles;
  if (tasks == 0) return 0;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task)
      if (w) run_task(*w, call, task / tiles / heads, task / tiles % heads * TOGETHER, int(task % tiles));
    std::free(w);
  }
  return failed;
}

constexpr int ELEMENTS_A_THREAD = 32768;

// ---- Storing: the call's keys and values to the slots that they keep, group by group of every sequence.
// Printed for the pattern: slot[n] is that which key[n] is kept in, negative for none. `places`: of the group.
void slots_to_keep(const int32_t* places, int group, int stop, const int* key, int count, int* slot);

template <int N>
inline void copy_row(const Matrix& from, int row, element* to) {
  const element* data = from.data + row * from.row;
  if (from.dim == 1) std::memcpy(to, data, N * sizeof *to);
  else
    for (int d = 0; d < N; ++d) to[d] = data[d * from.dim];
}

void store_group(const sparsec_cached_call& call, int64_t b, int64_t g) {
  constexpr int AT_ONCE = 256;
  const int length = call.lengths[b], stop = length + int(count_of(call, b));
  const Matrix k = matrix(call.k, call.k_stride, b, g, call.n - stop),
               v = matrix(call.v, call.v_stride, b, g, call.n - stop);
  element* keys = (element*)call.keys + b * call.slots * D;
  element* values = (element*)call.values + b * call.slots * DV;
  for (int first = length; first < stop; first += AT_ONCE) {
    const int count = minimum(AT_ONCE, stop - first);
    int key[AT_ONCE], slot[AT_ONCE];
    for (int n = 0; n < count; ++n) key[n] = first + n;
    slots_to_keep(places_of(call, g), int(g), stop, key, count, slot);
    for (int n = 0; n < count; ++n)
      if (slot[n] >= 0) {
        copy_row<D>(k, key[n], keys + int64_t(slot[n]) * D);
        copy_row<DV>(v, key[n], values + int64_t(slot[n]) * DV);
      }
  }
}

int store(const sparsec_cached_call& call) {
  if (!sound(call)) return 2;
  const int64_t tasks = call.batch * KV_HEADS;
  // Threads: waking one takes as long as copying so many elements.
  const int64_t worth = 1 + tasks * call.n * WIDEST / ELEMENTS_A_THREAD;
#pragma omp parallel for schedule(dynamic, 1) \
    num_threads(int(std::min<int64_t>(std::min<int64_t>(call.threads, worth), std::max<int64_t>(tasks, 1))))
  for (int64_t task = 0; task < tasks; ++task) store_group(call, task / KV_HEADS, task % KV_HEADS);
  if (call.state)
    for (int64_t b = 0; b < call.batch; ++b) {
      call.lengths[b] += int32_t(count_of(call, b));
      int64_t *now = call.state + b, *most = now + call.batch;
      *now = call.lengths[b];
      *most = std::max(*most, *now);
    }
  return 0;
}

// In the library, for its manifest.
__attribute__((used)) const struct {
  char entry[48];
  Name name;
} MICRO_KERNEL = {"sparsec micro-kernel of attend_chunk", Operands::NAME};

// ---- Slots of keys, for each class of heads.
void slots_of_keys_0(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
  static const int s0_of[] = {0, 0, 15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9};
  const int s0 = s0_of[member];
  const int base0 = base_of(places + 0), capacity0 = capacity_of(places + 0);
  const int base1 = base_of(places + 2), capacity1 = capacity_of(places + 2);
  for (int n = 0; n < count; ++n) {
    [[maybe_unused]] const int j = key[n];
    slot[n] = (((((j >> 6) - s0) & 15) < 1) ? (((((j >> 6) - s0) >> 4) * 64 + (j & 63) < capacity0) ? base0 + ((((j >> 6) - s0) >> 4) * 64 + (j & 63)) : -1) : base1 + j % capacity1);
  }
}

void slots_of_keys(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
  static const int class_of[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  switch (class_of[member]) {
    case 0: slots_of_keys_0(places, member, stop, key, count, slot); break;
  }
}

// ---- Slots of keys, for each class of groups.
void slots_to_keep_0(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
  static const int s0_of[] = {0, 15, 14, 13, 12, 11, 10, 9};
  const int s0 = s0_of[member];
  const int base0 = base_of(places + 0), capacity0 = capacity_of(places + 0);
  const int base1 = base_of(places + 2), capacity1 = capacity_of(places + 2);
  for (int n = 0; n < count; ++n) {
    [[maybe_unused]] const int j = key[n];
    slot[n] = (((((j >> 6) - s0) & 15) < 1) ? (((((j >> 6) - s0) >> 4) * 64 + (j & 63) < capacity0) ? base0 + ((((j >> 6) - s0) >> 4) * 64 + (j & 63)) : -1) : ((stop - capacity1 < j + 1) ? base1 + j % capacity1 : -1));
  }
}

void slots_to_keep(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
  static const int class_of[] = {0, 0, 0, 0, 0, 0, 0, 0};
  switch (class_of[member]) {
    case 0: slots_to_keep_0(places, member, stop, key, count, slot); break;
  }
}

...

}  // namespace
}  // namespace sparsec_chunk

// Each returns 0, 1 when memory ran out, or 2 for lengths or places that the call's tensors do not have.
extern "C" int sparsec_attend_chunk(const sparsec_cached_call* call) { return sparsec_chunk::attend_chunk(*call); }

extern "C" int sparsec_store(const sparsec_cached_call* call) { return sparsec_chunk::store(*call); }

// Sparse attention over a cache: single queries.
//
// Bound by the reading of keys. Query heads of one key head that see the same keys are a pack, and read them once; a
// key that no head sees is not read. The tiles of a row are dealt out in turn to a number of tasks that depends on
// lengths alone, whose sums are merged in order: the same bits whatever the number of threads. Lanes lie along the head
// dim.
//
// Here: 16 query heads on 8 key heads, head dim 128, float32.
// Build: c++ -std=c++17 -O3 -march=native -fopenmp -shared -fPIC, without -ffast-math (infinities carry meaning).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

...

namespace sparsec_rows {
namespace {

constexpr int HEADS = 16, KV_HEADS = 8, D = 128, DV = 128;
constexpr int QUERY_TILE = 1, KEY_TILE = 64;
constexpr int LANE_TILE = KEY_TILE;  // lies across vector lanes
constexpr int REGIONS = 2;  // of a KV group in the table of places

...

// Widens a vector in memory, here of floats already.
inline void wide(const float* from, vec (&to)[1]) { to[0] = load(from); }

...

constexpr int KEYS_A_TASK = 512, MOST_TASKS = 16;

// ---- Shares of the tiles of a row of a pack, each a task.
// A task has KEYS_A_TASK keys at least, but where a row has MOST_TASKS of them more, and in a short row.

// How many of at most `most` tasks share so many keys, never by the number of threads.
inline int64_t shares_of(int64_t keys, int64_t most) {
  return std::min(std::max<int64_t>(keys / KEYS_A_TASK, 1), most);
}

// How many tasks share a row of a group at most: by the keys that there can be. Some may be left idle.
int tasks_of(const sparsec_cached_call& call, int64_t b, int64_t g) {
  int64_t kept = count_of(call, b);
  for (int n = 0; n < REGIONS; ++n) kept += places_of(call, g)[2 * n + 1];
  if (call.kept) kept += call.kept->lists[(b * KV_HEADS + g) * 3 + 2];
  const int64_t keys = std::min<int64_t>(kept, call.lengths[b] + count_of(call, b));
  return int(shares_of(keys, MOST_TASKS));
}

// The most of a row of the call.
int most_tasks(const sparsec_cached_call& call) {
  int most = 1;
  for (int64_t b = 0; b < call.batch; ++b)
    for (int64_t g = 0; g < KV_HEADS; ++g) most = maximum(most, tasks_of(call, b, g));
  return most;
}

...

constexpr int AHEAD = 48;

// ---- Dot products: lanes along the head dim, in steps of STEP elements; keys widen in registers.
constexpr int PARTS = sizeof(float) / sizeof(element),
              STEP = PARTS * LANES;  // a vector in memory becomes PARTS vectors
template <int N>
struct Steps {  // of a row of N numbers: WHOLE steps, REST numbers more, WIDE numbers once widened
  static constexpr int WHOLE = N / STEP, REST = N % STEP, WIDE = (WHOLE + (REST > 0)) * STEP;
};
typedef Steps<D> KeySteps;
typedef Steps<DV> ValueSteps;
constexpr int SUMS = LANES == 8 ? 8 : 16;  // vectors of sums that fit in registers beside their operands
constexpr int HELD_BACK = (AHEAD + PANEL - 1) / PANEL * PANEL;  // keys that wait on when others are taken
constexpr int BATCH = 2 * (KEY_TILE < 64 ? 64 : KEY_TILE) + HELD_BACK;  // keys that wait at most
static_assert(AHEAD >= LANES, "AHEAD: keys from the one at hand to the one to fetch");

// Where element d of a row lies once widened: neighbours go to the same lane of different vectors, without a shuffle.
inline int place(int d) { return d / STEP * STEP + d % PARTS * LANES + d % STEP / PARTS; }

template <int REST>
inline void wide_rest(const element* from, vec (&to)[PARTS]) {
  element padded[STEP] = {};
  std::memcpy(padded, from, REST * sizeof *padded);
  wide(padded, to);
}

// Sums of neighbours, N of them: a compiler makes vectors of this, and not of the sum of a vector's lanes.
template <int N>
inline void add_pairs(const float* __restrict x, float* __restrict to) {
  for (int n = 0; n < N; ++n) to[n] = x[2 * n] + x[2 * n + 1];
}

// to[n] = the sum of the lanes of x[n], for LANES vectors.
inline void add_lanes(float (&x)[LANES * LANES], float* to) {
  float y[LANES * LANES / 2];
  add_pairs<LANES * LANES / 2>(x, y);
  if (LANES == 4) return add_pairs<LANES>(y, to);
  add_pairs<LANES * LANES / 4>(y, x);
  if (LANES == 8) return add_pairs<LANES>(x, to);
  add_pairs<LANES * LANES / 8>(x, y);
  add_pairs<LANES>(y, to);
}

template <int N>
inline void fetch(const element* row) {
  for (size_t d = 0; d < N * sizeof *row; d += 64) __builtin_prefetch((const char*)row + d, 0, 2);
}

// s[r][n] = the product of q[r] and key[n], rows of N numbers, in groups of LANES keys; AHEAD more entries of `key` are
// addresses too. At the end come the first AHEAD values, rows of M, so that memory is never idle.
template <int R, int N, int M>
__attribute__((noinline)) void score(const float (*q)[Steps<N>::WIDE], const element* const* key,
                                     const element* const* value, int count, float (*s)[BATCH]) {
  constexpr int WHOLE = Steps<N>::WHOLE, REST = Steps<N>::REST;
  for (int first = 0; first < count; first += LANES) {
    float products[R][LANES * LANES];
    for (int n = 0; n < LANES; ++n) {
      const element* row = key[first + n];
      fetch<N>(key[first + n + AHEAD]);
      if (first + n >= count - AHEAD) fetch<M>(value[first + n - (count - AHEAD)]);
      vec total[R] = {}, x[PARTS];
      EACH(c, WHOLE) {
        wide(row + c * STEP, x);
        EACH(r, R) EACH(i, PARTS) total[r] += x[i] * load(q[r] + c * STEP + i * LANES);
      }
      if (REST > 0) {
        wide_rest<REST>(row + WHOLE * STEP, x);
        EACH(r, R) EACH(i, PARTS) total[r] += x[i] * load(q[r] + WHOLE * STEP + i * LANES);
      }
      EACH(r, R) store(products[r] + n * LANES, total[r]);
    }
    EACH(r, R) add_lanes(products[r], s[r] + first);
  }
}

// o[r] += the sum over n of p[r][n] * value[n], rows of N numbers, in C steps from step c on, or in the rest of a row;
// AHEAD more entries of `value` are addresses too.
template <int R, int N, int C, bool IS_REST>
__attribute__((noinline)) void gather(const float (*p)[BATCH], const element* const* value, int count, int c,
                                      float (*o)[Steps<N>::WIDE]) {
  vec total[R][C * PARTS];
  EACH(r, R) EACH(n, C * PARTS) total[r][n] = load(o[r] + c * STEP + n * LANES);
  for (int k = 0; k < count; ++k) {
    const element* row = value[k] + c * STEP;
    if (c == 0) fetch<N>(value[k + AHEAD]);
    EACH(n, C) {
      vec x[PARTS];
      if (IS_REST) wide_rest<Steps<N>::REST>(row, x);
      else wide(row + n * STEP, x);
      EACH(r, R) EACH(i, PARTS) total[r][n * PARTS + i] += p[r][k] * x[i];
    }
  }
  EACH(r, R) EACH(n, C * PARTS) store(o[r] + c * STEP + n * LANES, total[r][n]);
}

template <int R, int N>
inline void gather(const float (*p)[BATCH], const element* const* value, int count, float (*o)[Steps<N>::WIDE]) {
  constexpr int WHOLE = Steps<N>::WHOLE, C = SUMS / R / PARTS, LAST = WHOLE % C;
  int c = 0;
  for (; c + C <= WHOLE; c += C) gather<R, N, C, false>(p, value, count, c, o);
  if constexpr (LAST > 0) gather<R, N, LAST, false>(p, value, count, c, o);
  if constexpr (Steps<N>::REST > 0) gather<R, N, 1, true>(p, value, count, WHOLE, o);
}

...

// Points at the keys and values at positions at[0 .. count - 1] as they are stored, in the cache for head `head` or in
// the call's tensors, whose head dim is contiguous; `slot` is scratch. `stop`: as of `slots_of_keys`.
inline void point_rows(const Source& from, int head, int stop, const int* at, int count, int* slot, const element** key,
                       const element** value) {
  if (from.listed) {  // the entries are in `slot`
    for (int n = 0; n < count; ++n) {
      key[n] = from.listed_keys + int64_t(slot[n]) * D;
      value[n] = from.listed_values + int64_t(slot[n]) * DV;
    }
    return;
  }
  slots_of_keys(from.places, head, stop, at, count, slot);
  for (int n = 0; n < count; ++n) {
    const bool old = at[n] < from.length;
    const int64_t row = old ? maximum(slot[n], 0) : at[n];
    key[n] = (old ? from.keys : from.k).data + row * (old ? from.keys : from.k).row;
    value[n] = (old ? from.values : from.v).data + row * (old ? from.values : from.v).row;
  }
}

// ---- Waiting keys: those of one row and the heads of a pack, as they are found; many are attended to at a time.
constexpr int SHARE = HEADS / KV_HEADS;

struct Waiting {
  int at[BATCH], slot[BATCH];  // keys to attend to; BATCH - KEY_TILE of them or fewer wait
  const element *key[BATCH + AHEAD], *value[BATCH + AHEAD];
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
  for (int n = count; n < count + AHEAD; ++n) w.key[n] = w.key[count - 1], w.value[n] = w.value[count - 1];
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

// ---- A row: one query of each head of a pack, the keys that it sees, and its online soft-max.
struct Row : Waiting {  // one thread's scratch
  float q[SHARE][KeySteps::WIDE];  // times the score's scale
  float o[SHARE][ValueSteps::WIDE];  // the sum of weights times values, relative to 2^peak
  float peak[SHARE], total[SHARE];
  float s[SHARE][BATCH];
  Modifiers modifiers[SHARE];  // of the heads' scores
  int32_t* met;  // over pages, of tiles 0 .. tiles - 1 how many rows see them in full, of `sharing` rows
  int tiles, sharing;
};

// Row `row` of q, before it has seen a key; the key at position 0 is row `k_row`.
template <class Call>
void load_query(Row& w, const Call& call, int64_t b, int64_t row, int64_t k_row) {
  const float factor = call.scale * Modifiers::UNIT;
  for (int r = 0; r < w.pack; ++r) {
    const Matrix q = matrix(call.q, call.q_stride, b, w.heads[r], row);
    std::fill(w.q[r], w.q[r] + KeySteps::WIDE, 0.0f);
    for (int d = 0; d < D; ++d) w.q[r][place(d)] = widen(q.data[d * q.dim]) * factor;
    std::fill(w.o[r], w.o[r] + ValueSteps::WIDE, 0.0f);
    w.peak[r] = -INF, w.total[r] = 0.0f;
    w.modifiers[r] = Modifiers(call, b, w.heads[r], k_row);
  }
  w.waiting = 0;
}

// Turns the scores of the first `count` waiting keys into weights, for head r of the pack.
inline void weigh(Row& w, int count, int r) {
  const vec lowest = splat(LOWEST_EXPONENT);
  float* s = w.s[r];
  vec largest = splat(w.peak[r]), total = {};
  for (int n = 0; n < count; n += PANEL) {
    vec x[VECS];
    EACH(v, VECS) x[v] = load(s + n + v * LANES);
    ivec at[VECS];
    EACH(v, VECS) std::memcpy(&at[v], w.at + n + v * LANES, sizeof at[v]);
    Modifiers::Kept<VECS> kept;
    w.modifiers[r].forward(x, kept, at, &w.i0);
    if constexpr (Modifiers::KEYS) EACH(v, VECS) x[v] = added(x[v], of_keys(w.modifiers[r], at[v]));
    EACH(v, VECS) {
      ivec there = w.lane[v] + n < count;
      x[v] = there ? x[v] : splat(-INF);
      largest = maximum(x[v], largest);
      store(s + n + v * LANES, x[v]);
    }
  }
  float peak = w.peak[r];
  for (int n = 0; n < LANES; ++n) peak = largest[n] > peak ? largest[n] : peak;
  const vec shift = splat(peak == -INF ? 0.0f : peak);
  for (int n = 0; n < count; n += PANEL) {
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

// Attends to the first `count` of the keys that wait.
inline void attend(Row& w, int count) {
  if (count <= 0) return;
  point_waiting(w);
  by_heads(w.pack,
           [&w, count](auto heads, int r) { score<heads.value, D, DV>(w.q + r, w.key, w.value, count, w.s + r); });
  for (int r = 0; r < w.pack; ++r) weigh(w, count, r);
  by_heads(w.pack, [&w, count](auto heads, int r) { gather<heads.value, DV>(w.s + r, w.value, count, w.o + r); });
  w.waiting -= count;
  std::copy_n(w.at + count, w.waiting, w.at);
  std::copy_n(w.slot + count, w.waiting, w.slot);
}

// Attends to the keys that wait.
inline void attend(Row& w) { attend(w, w.waiting); }

// The last ones wait on: they are fetched while the others are at hand, and the next ones while they are.
inline void make_room(Row& w) { attend(w, w.waiting - HELD_BACK); }

// ---- Packs: query heads of one KV group that see the same keys.
struct Pack {
  int group, size, heads[HEADS / KV_HEADS];
};

const Pack PACKS[] = {
    {0, 2, {0, 1}},
    {1, 2, {2, 3}},
    {2, 2, {4, 5}},
    {3, 2, {6, 7}},
    {4, 2, {8, 9}},
    {5, 2, {10, 11}},
    {6, 2, {12, 13}},
    {7, 2, {14, 15}},
};
constexpr int PACK_COUNT = sizeof PACKS / sizeof *PACKS;

// ---- Tiles of a row's keys.
// Whether a full tile is not the row's own matter: over pages alone.
template <class Row>
inline bool is_shared(Row&, int) {
  return false;
}

template <class Row>
inline void attend_full(Row& w, int tile) {
  if (is_shared(w, tile) || !takes(w)) return;
  const int count = minimum(tile * KEY_TILE + KEY_TILE, w.end) - tile * KEY_TILE;
  if constexpr (Modifiers::KEYS) {
    for (int n = 0; n < count; n += LANES) {
      const ivec j = w.lane[0] + (tile * KEY_TILE + n);
      add_seen(w, j, keeps(w.modifiers[0], j) & (j < w.end));
    }
    return;
  }
  for (int n = 0; n < count; ++n) w.at[w.waiting + n] = tile * KEY_TILE + n;
  w.waiting += count;
}

// `live(j, i)` is the mask of keys j for row i.
template <class Row, class Live>
inline void attend_masked(Row& w, int tile, const Live& live) {
  if (!takes(w)) return;
  for (int first = tile * KEY_TILE; first < minimum(tile * KEY_TILE + KEY_TILE, w.end); first += PANEL) EACH(v, VECS) {
      const ivec j = w.lane[v] + first;
      add_seen(w, j, live(j, w.i0) & keeps(w.modifiers[0], j) & (j < w.end));
    }
}

// ---- One share of a row, over a cache or over pages, whose header has what is asked of the call.
// Row `row` of sequence b; returns the row of position 0.
template <class Work, class Call>
inline int64_t place_row(Work& w, const Call& call, int64_t b, int64_t row) {
  w.n_k = w.end = tokens_before(call, b) + int(count_of(call, b));
  const int64_t first = rows_end(call, b) - w.n_k;
  w.begin = 0, w.i0 = w.i1 = int(row - first);
  return first;
}

// Of the row some heads of one pack, which see the same keys.
template <class Work, class Call>
inline void place_heads(Work& w, const Call& call, int64_t b, int64_t first, const int* heads, int count) {
  w.heads = heads, w.pack = count;
  w.source = source_of(call, b, heads[0], first);
  w.inputs = Inputs(call, b, first, 0, w.n_k, first_query(call, b));
}

// Attends to one share of row `row`, by as many heads of the pack at a time as see the same keys: w has them between
// `start()` and `end(false)`; of a share that is left idle `end(true)` alone. Nothing of padding, and of a share that
// the row has not.
template <class Work, class Call, class Start, class End>
void attend_share(Work& w, const Call& call, int64_t b, const Pack& pack, int64_t row, int task, const Start& start,
                  const End& end) {
  const int64_t first = place_row(w, call, b, row);
  const int tasks = tasks_of(call, b, pack.group);
  if (w.i0 < tokens_before(call, b) || task >= tasks) return;
  const bool alone = each_alone(call);
  for (int n = 0; n < pack.size; n += w.pack) {
    place_heads(w, call, b, first, pack.heads + n, alone ? 1 : pack.size);
    w.turn = w.first = w.stop = w.waiting = 0;
    if (tasks > 1) visit(w, call.lists, w.heads[0]);  // only counts the tiles
    const int64_t tiles = tasks > 1 ? w.turn : INT32_MAX, shares = shares_of(tiles * KEY_TILE, tasks);
    w.turn = 0, w.first = int(tiles * task / shares), w.stop = int(tiles * (task + 1) / shares);
    if (task < shares) {
      start();
      visit(w, call.lists, w.heads[0]);
      attend(w);
    }
    end(task >= shares);
  }
}

// ---- What the shares of every row of every pack leave, and the merging of each row's sums.
typedef Row Work;

// Printed for the pattern: visits the tiles that the row sees, and the keys that it lists itself.
void visit(Work& w, const sparsec_list* lists, int head);

struct Sum {  // what one task leaves of a row of one head
  float o[ValueSteps::WIDE], peak, total;
};

// Leaves the sums of the row's heads at sums[head * apart]; `idle`: it has none.
inline void keep_sums(const Work& w, bool idle, int64_t apart, Sum* sums) {
  for (int r = 0; r < w.pack; ++r) {
    Sum& sum = sums[w.heads[r] * apart];
    sum.total = 0.0f;
    if (idle) continue;
    std::copy(w.o[r], w.o[r] + ValueSteps::WIDE, sum.o);
    sum.peak = w.peak[r], sum.total = w.total[r];
  }
}

// Likewise of one share of row `row`.
template <class Call>
void run_task(Work& w, const Call& call, int64_t b, const Pack& pack, int64_t row, int task, int64_t apart, Sum* sums) {
  const auto end = [&](bool idle) { keep_sums(w, idle, apart, sums); };
  attend_share(w, call, b, pack, row, task, [&] { load_query(w, call, b, row, 0); }, end);
}

// Adds up the `count` sums of a row of head h, and stores it; padding, which has none, becomes 0 and -inf.
template <class Call>
void merge(const Call& call, int64_t h, const Sum* sums, int count, element* out, float* lse) {
  float peak = -INF, total = 0.0f, o[ValueSteps::WIDE] = {};
  if (count > 0) Modifiers(call, 0, h, 0).start(peak, total);
  for (int n = 0; n < count; ++n) {
    if (sums[n].total == 0.0f) continue;  // it saw no key
    const float larger = sums[n].peak > peak ? sums[n].peak : peak;
    const float before = peak == larger ? 1.0f : std::exp2(peak - larger), now = std::exp2(sums[n].peak - larger);
    total = total * before + sums[n].total * now;
    for (int d = 0; d < ValueSteps::WIDE; ++d) o[d] = o[d] * before + sums[n].o[d] * now;
    peak = larger;
  }
  const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
  for (int d = 0; d < DV; ++d) out[d] = narrow(o[place(d)] * inverse);
  *lse = total == 0.0f ? -INF : (peak + std::log2(total)) * 0.6931471806f;
}

// ---- Tasks: shares of every row of every pack, and after all of them the merging of each row's sums.
int attend_rows(const sparsec_cached_call& call) {
  if (!sound(call)) return 2;
  const int most = most_tasks(call);
  const int64_t rows = call.batch * call.n, tasks = rows * PACK_COUNT * most;
  if (tasks == 0) return 0;
  Sum* sums = static_cast<Sum*>(std::malloc(rows * HEADS * most * sizeof(Sum)));  // [batch, heads, n, most]
  if (!sums) return 1;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < tasks; ++n) {
      const int64_t task = n % most, pack = n / most % PACK_COUNT, row = n / most / PACK_COUNT;
      const int64_t b = row / call.n, r = row % call.n;
      if (w)
        run_task(*w, call, b, PACKS[pack], r, int(task), call.n * most, sums + (b * HEADS * call.n + r) * most + task);
    }
    std::free(w);
#pragma omp for
    for (int64_t n = 0; n < rows * HEADS; ++n) {
      const int64_t b = n / call.n / HEADS, h = n / call.n % HEADS;
      const bool padding = n % call.n < call.n - count_of(call, b);
      const int count = padding ? 0 : tasks_of(call, b, h / SHARE);
      merge(call, h, sums + n * most, count, (element*)call.out + n * DV, call.lse + n);
    }
  }
  std::free(sums);
  return failed;
}

// In the library, for its manifest.
__attribute__((used)) const struct {
  char entry[48];
  Name name;
} MICRO_KERNEL = {"sparsec micro-kernel of attend_rows", Operands::NAME};

...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 9: window(16b) & line 7: causal
// line 9: stride(16b) & line 7: causal
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  static const int c0_of_head[HEADS] = {0, 0, 15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9};
  [[maybe_unused]] const int c0 = c0_of_head[head];
  const int hi0 = maximum(minimum(nk, i0 + 1), 0);
  const int from0 = minimum(maximum(0, (i0 >> 6) - 15), (nk >> 6));
  const int to0 = maximum(from0, maximum(minimum(((nk + 63) >> 6), ((i0 + 64) >> 6)), 0));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, (i0 >> 6) - 15);
  const int full_to0 = maximum(full_from0, maximum(maximum(0, (i0 >> 6) - 15), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0)));
  const int count0 = maximum(full_to0 - full_from0, 0);
  const int count1 = maximum(minimum(stop0, full_from0) - from0, 0);
  const int at0 = maximum(from0, full_to0);
  const int count2 = maximum(stop0 - at0, 0);
  const int to1 = ((0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i0 + 64) >> 6)), 0) : 0);
  const int full_to1 = maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0);
  const int until0 = minimum(to1, from0);
  const int until1 = minimum(until0, full_to1);
  const int first_tile0 = (c0 & 15);
  const int count3 = ((until1 + 16 - first_tile0 + 15) >> 4) - 1;
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return ((((i >> 6) * 64 - 960 < j + 1) & (j < i + 1)) | ((j < i + 1) & ((((j >> 6) - c0) & 15) < 1))); };
  // line 9: window(16b) & line 7: causal
  for (int count = count0, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
    const int tile = full_from0 + n;
    attend_full(w, tile);
  }
  // line 9: stride(16b) & line 7: causal
  for (int count = count3, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
    const int tile = (n + 1) * 16 - 16 + first_tile0;
    attend_full(w, tile);
  }
  // line 9: window(16b) & line 7: causal
  for (int count = count1, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
    const int tile = from0 + n;
    attend_masked(w, tile, live);
  }
  // line 9: window(16b) & line 7: causal
  for (int count = count2, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
    const int tile = at0 + n;
    attend_masked(w, tile, live);
  }
}

...

}  // namespace
}  // namespace sparsec_rows

// Returns 0, 1 when memory ran out, or 2 for lengths or places that the call's tensors do not have.
extern "C" int sparsec_attend_rows(const sparsec_cached_call* call) { return sparsec_rows::attend_rows(*call); }
