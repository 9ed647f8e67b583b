// Sparse attention, forward.
//
// One task is one query tile of one head: transpose q once, visit the key tiles of the head's class in the order below,
// keep a running maximum and sum (soft-max in base 2), divide at the end. Vector lanes are queries everywhere.
//
// Here: 16 query heads on 8 key heads, head dim 128, float32.
// Build: c++ -std=c++17 -O3 -march=native -fopenmp -shared -fPIC, without -ffast-math (infinities carry meaning).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#ifndef SPARSEC_LIST
#define SPARSEC_LIST
struct sparsec_list {  // a table of draws, int32 [rows, blocks, width]
  const int32_t* entries;
  int64_t first;  // its first query block
  int64_t blocks;
};
#endif

#ifndef SPARSEC_LOOKUP
#define SPARSEC_LOOKUP
struct sparsec_lookup {  // what an input says, contiguous [batch, heads, rows, columns]; batch and heads may be 1
  const void* data;  // int32, or int64 of lists, or uint8 of cells and ancestors
  int64_t batch;
  int64_t heads;
  int64_t rows;
  int64_t columns;
  int64_t first;  // of prefix counts, the first number; of lists, whether they are int64
};
#endif

#ifndef SPARSEC_CALL
#define SPARSEC_CALL
struct sparsec_call {  // strides in elements; q [B, H, Nq, D], k [B, G, Nk, D]; out, v: DV for D; lse [B, H, Nq]
  const void* q;
  const void* k;
  const void* v;
  void* out;
  float* lse;
  int64_t q_stride[4];
  int64_t k_stride[4];
  int64_t v_stride[4];
  int64_t out_stride[4];
  int64_t lse_stride[3];
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
  const int32_t* cu_seqlens;  // [documents + 1], for documents
  int64_t documents;
  float scale;
  int32_t threads;
};
#endif

namespace sparsec_kernel {
namespace {

// Rows list no keys themselves.
constexpr int TOGETHER = 1;

struct Gathered {};

template <class Work, class Call>
void gather_rows(Work&, const Call&, int64_t, int64_t, int64_t, int64_t) {}

template <class Work>
void resume(Work&, int64_t) {}

// Nothing is asked of inputs.
struct Inputs {
  static constexpr bool ASKED = false;
  template <class Call>
  Inputs(const Call&, int64_t, int64_t, int64_t, int, int = 0) {}
};

template <class Call>
bool tells_heads_apart(const Call&) {
  return false;
}

constexpr int HEADS = 16, KV_HEADS = 8, D = 128, DV = 128;
constexpr int QUERY_TILE = 64, KEY_TILE = 64;
constexpr int LANE_TILE = QUERY_TILE;  // lies across vector lanes

// ---- Elements: tensors hold float32; all arithmetic is float32.
typedef float element;
inline float widen(float x) { return x; }
inline float narrow(float x) { return x; }

// ---- Vectors: LANES numbers; a panel is VECS vectors, a register block ROWS sums x one panel.
struct Name {
  char text[48];
};
#if defined(__AVX512F__)
constexpr int LANES = 16, VECS = LANE_TILE % 32 == 0 ? 2 : 1, ROWS = 12;
constexpr Name FLOATS = {"float32, 16 lanes"};
#elif defined(__AVX__)
constexpr int LANES = 8, VECS = 2, ROWS = 6;
constexpr Name FLOATS = {"float32, 8 lanes"};
#elif defined(__aarch64__)
constexpr int LANES = 4, VECS = 4, ROWS = 6;
constexpr Name FLOATS = {"float32, 4 lanes"};
#else
constexpr int LANES = 4, VECS = 2, ROWS = 6;
constexpr Name FLOATS = {"float32, 4 lanes"};
#endif
constexpr int PANEL = LANES * VECS, PANELS = LANE_TILE / PANEL;
static_assert(PANELS * PANEL == LANE_TILE, "a tile is whole panels");

typedef float vec __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t ivec __attribute__((vector_size(LANES * sizeof(int32_t))));  // also masks: -1 where true, 0 where false

constexpr float INF = __builtin_inff(), LOG2E = 1.4426950409f;

inline vec splat(float x) { return x - vec{}; }
inline ivec splat(int x) { return x - ivec{}; }
inline vec load(const float* p) {
  vec x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline void store(float* p, vec x) { std::memcpy(p, &x, sizeof x); }
inline vec maximum(vec a, vec b) { return a > b ? a : b; }  // b where either is NaN

inline int minimum(int a, int b) { return b < a ? b : a; }
inline int maximum(int a, int b) { return a < b ? b : a; }
inline ivec minimum(ivec a, ivec b) { return a < b ? a : b; }
inline ivec maximum(ivec a, ivec b) { return a > b ? a : b; }

// Rounds toward minus infinity, as the pattern's language does; the divisor is positive.
template <class A, class B>
inline auto floor_div(A a, B b) {
  const auto q = a / b;
  return q - ((a - q * b < 0) & 1);
}
template <class A, class B>
inline auto floor_mod(A a, B b) {
  return a - floor_div(a, b) * b;
}

inline int truth(bool x) { return -int(x); }  // a mask for every lane

inline bool any(ivec x) {
  typedef int64_t wide __attribute__((vector_size(sizeof(ivec))));
  const wide w = (wide)x;
  int64_t bits = 0;
  for (unsigned n = 0; n < sizeof(ivec) / sizeof(int64_t); ++n) bits |= w[n];
  return bits != 0;
}

// A loop of few trips that is always unrolled, so that small arrays of vectors live in registers.
#if defined(__clang__)
#define EACH(n, N) _Pragma("unroll") for (int n = 0; n < (N); ++n)
#else
#define EACH(n, N) _Pragma("GCC unroll 32") for (int n = 0; n < (N); ++n)
#endif

const volatile float LOWEST_EXPONENT = -127.0f;  // opaque: against a constant GCC takes two instructions for a maximum

// 2^x for x <= 100, relative error 1.1e-7; exactly 1 at 0, exactly 0 at -inf; NaN stays NaN. The vectors go step by
// step side by side, because one alone would wait for itself. `lowest` is LOWEST_EXPONENT in every lane.
template <int N>
inline void exp2(vec (&x)[N], vec lowest) {
  vec shifted[N], p[N];
  EACH(n, N) x[n] = maximum(lowest, x[n]);
  EACH(n, N) shifted[n] = x[n] + 12582912.0f;  // 1.5 * 2^23: the nearest integer sits in the low bits
  EACH(n, N) x[n] -= shifted[n] - 12582912.0f;
  EACH(n, N) p[n] = x[n] * 1.326472731e-3f + 9.671512991e-3f;
  EACH(n, N) p[n] = p[n] * x[n] + 5.550733581e-2f;
  EACH(n, N) p[n] = p[n] * x[n] + 2.402224243e-1f;
  EACH(n, N) p[n] = p[n] * x[n] + 6.931470037e-1f;
  EACH(n, N) p[n] = p[n] * x[n] + 1.0f;
  EACH(n, N) x[n] = (vec)((ivec)p[n] + ((ivec)shifted[n] << 23));
}

// ---- Operands: what the micro-kernels multiply. A unit is DEPTH of them, neighbours in the dimension that is summed
// over; sums are float32.
struct Floats {
  typedef float operand;
  typedef vec units;  // one in each lane
  static constexpr int DEPTH = 1;
  static constexpr Name NAME = FLOATS;

  static units read(const float* from) { return load(from); }
  static units spread(const float* unit) { return splat(*unit); }
  static vec add(vec sum, units a, units b) { return sum + a * b; }

  // A factor of the sums is either in one side of a product, here `count` vectors of units, or comes to the sums.
  static void scale(float* x, int count, float factor) {
    for (int n = 0; n < count; ++n, x += LANES) store(x, load(x) * factor);
  }
  static vec scaled(vec sum, float) { return sum; }

  // As operands two rows of N vectors, `width` operands apart, that are summed over.
  template <int N>
  static void store_two(const vec (&x)[2 * N], float* to, int width) {
    EACH(n, 2 * N) store(to + n / N * width + n % N * LANES, x[n]);
  }
  // The same of rows that are also units of neighbours within a row.
  template <int N>
  static void store_both(const vec (&x)[2 * N], float* to, float*, int width) {
    store_two<N>(x, to, width);
  }
  // The mask of a unit's operands, of a mask of each.
  static ivec seen(const ivec (*mask)[VECS], int v) { return mask[0][v]; }
  static int32_t seen(const int32_t* mask) { return mask[0]; }
  // The bits of operand n of each unit, as a float32 has them.
  static ivec bits(units x, int) { return (ivec)x; }
  static int32_t bits(const float* x) {
    int32_t to;
    std::memcpy(&to, x, sizeof to);
    return to;
  }

  static units masked(units x, int32_t mask) { return (units)((ivec)x & mask); }

  // COUNT rows of N operands, in units across the rows.
  template <int N, int COUNT>
  struct Across {
    const float* const* of(const float* const* row, int) { return row; }
  };
};

typedef Floats Operands;  // elements are widened

typedef Operands::operand operand;
constexpr int DEPTH = Operands::DEPTH;
constexpr int units_of(int n) { return (n + DEPTH - 1) / DEPTH; }
constexpr int row_of(int n) { return units_of(n) * DEPTH; }  // operands of n elements, in whole units
constexpr int WIDEST = D > DV ? D : DV;  // of a row of keys and one of values

struct Matrix {  // [rows, D or DV], strides in elements
  const element* data;
  int64_t row, dim;
};

// [batch, heads, rows, ...] at one batch entry and head; row 0 of the result is row `first`, which may be negative.
Matrix matrix(const void* data, const int64_t* stride, int64_t b, int64_t h, int64_t first) {
  return {(const element*)data + b * stride[0] + h * stride[1] + first * stride[2], stride[2], stride[3]};
}

template <class To>
inline To converted(element x) {
  if constexpr (std::is_same_v<To, element>) return x;
  else return widen(x);
}

// Rows first .. first + count of `m`, of N numbers, as float32 or as operands, [count][width].
template <int N, class To>
void load_rows(const Matrix& m, int64_t first, int count, To* to, int width = N) {
  for (int n = 0; n < count; ++n, to += width) {
    const element* from = m.data + (first + n) * m.row;
    if (m.dim == 1)
      for (int d = 0; d < N; ++d) to[d] = converted<To>(from[d]);
    else
      for (int d = 0; d < N; ++d) to[d] = converted<To>(from[d * m.dim]);
  }
}

// Points at rows first .. first + count of `m`, of N numbers, in place if they are contiguous operands and whole units,
// else as such in `packed`.
template <int N>
inline void point(const Matrix& m, int64_t first, int count, operand (*packed)[row_of(N)], const operand** to) {
  constexpr bool IN_PLACE = std::is_same_v<operand, element> && N % DEPTH == 0;
  const operand* from = (const operand*)m.data + first * m.row;
  int64_t row = m.row;
  if (!IN_PLACE || m.dim != 1) {
    load_rows<N>(m, first, count, packed[0], row_of(N));
    if constexpr (N % DEPTH != 0)
      for (int n = 0; n < count; ++n) packed[n][N] = 0;
    from = packed[0], row = row_of(N);
  }
  for (int n = 0; n < count; ++n, from += row) to[n] = from;
}

// ---- Where the keys and values of a tile lie: in the call's own tensors.
struct Source {
  Matrix k, v;  // rows are positions
};

// For head h of sequence b; row `first` is at position 0.
template <class Call>
Source source_of(const Call& call, int64_t b, int64_t h, int64_t first) {
  const int64_t g = h / (HEADS / KV_HEADS);
  return {matrix(call.k, call.k_stride, b, g, first), matrix(call.v, call.v_stride, b, g, first)};
}

// Points at keys and values first .. first + count, in place or in `key` and `value`.
inline void point_tile(const Source& from, int, int first, int count, operand (*key)[row_of(D)],
                       operand (*value)[row_of(DV)], const operand** keys, const operand** values) {
  point<D>(from.k, first, count, key, keys);
  point<DV>(from.v, first, count, value, values);
}

// ---- Micro-kernels: a block of sums in registers, R rows of one panel each; scalars are broadcast in place.

// TOTAL rows in blocks of nearly equal size, at most ROWS: first those of LARGE rows, up to LARGE_END, then of SIZE.
template <int TOTAL>
struct Split {
  static constexpr int BLOCKS = (TOTAL + ROWS - 1) / ROWS, SIZE = TOTAL / BLOCKS, MORE = TOTAL % BLOCKS;
  static constexpr int LARGE = SIZE + (MORE > 0), LARGE_END = MORE * LARGE;
};

// o[r][lane] += the product of unit d + r of row[n] and of p[n][lane], summed over n; p's rows are WIDTH units apart,
// and there is at least one n.
template <int R, int WIDTH>
__attribute__((noinline)) void accumulate_block(const operand* const* row, int count, int d, const operand* p,
                                                float (*o)[PANEL]) {
  vec sum[R][VECS];
  EACH(r, R) EACH(v, VECS) sum[r][v] = load(o[r] + v * LANES);
  int n = 0;
  do {
    const operand* unit = row[n] + d * DEPTH;
    Operands::units x[VECS];
    EACH(v, VECS) x[v] = Operands::read(p + (n * WIDTH + v * LANES) * DEPTH);
    EACH(r, R) EACH(v, VECS) sum[r][v] = Operands::add(sum[r][v], Operands::spread(unit + r * DEPTH), x[v]);
  } while (++n < count);
  EACH(r, R) EACH(v, VECS) store(o[r] + v * LANES, sum[r][v]);
}

// The same for every unit of a row.
template <int WIDTH, int N>
inline void accumulate(const operand* const* row, int count, const operand* p, float (&o)[N][PANEL]) {
  typedef Split<N> DimSplit;
  int d = 0;
  for (; d < DimSplit::LARGE_END; d += DimSplit::LARGE)
    accumulate_block<DimSplit::LARGE, WIDTH>(row, count, d, p, o + d);
  for (; d < N; d += DimSplit::SIZE) accumulate_block<DimSplit::SIZE, WIDTH>(row, count, d, p, o + d);
}

// Whether no element of the rows, of N numbers, is infinite or NaN.
template <int N>
__attribute__((noinline)) bool all_finite(const operand* const* row, int count) {
  constexpr int32_t EXPONENT = 0x7f800000, MAGNITUDE = 0x7fffffff;
  ivec largest[VECS] = {};
  int32_t rest = 0;
  for (int n = 0; n < count; ++n) {
    int d = 0;
    for (; d + PANEL * DEPTH <= N; d += PANEL * DEPTH) EACH(v, VECS) EACH(i, DEPTH) {
        const ivec bits = Operands::bits(Operands::read(row[n] + d + v * LANES * DEPTH), i);
        largest[v] = maximum(largest[v], bits & MAGNITUDE);
      }
    for (; d < N; ++d) rest = maximum(rest, Operands::bits(row[n] + d) & MAGNITUDE);
  }
  ivec found = {};
  EACH(v, VECS) found |= largest[v] >= EXPONENT;
  return !any(found) && rest < EXPONENT;
}

// `accumulate` where some rows are not finite: an operand has no part in the lanes where its mask is 0, whatever it
// holds; the others have the same bits.
template <int WIDTH, int N>
__attribute__((noinline, cold)) void accumulate_seen(const operand* const* row, int count, const operand* p,
                                                     const ivec (*mask)[VECS], float (&o)[N][PANEL]) {
  for (int d = 0; d < N; ++d) {
    vec sum[VECS];
    EACH(v, VECS) sum[v] = load(o[d] + v * LANES);
    for (int n = 0; n < count; ++n) EACH(v, VECS) {
        const ivec seen = (ivec)Operands::spread(row[n] + d * DEPTH) & Operands::seen(mask + n * DEPTH, v);
        const Operands::units x = Operands::read(p + (n * WIDTH + v * LANES) * DEPTH);
        sum[v] = Operands::add(sum[v], (Operands::units)seen, x);
      }
    EACH(v, VECS) store(o[d] + v * LANES, sum[v]);
  }
}

// ---- Score modifiers: what the pattern does to scores, in base 2 and many at a time.

// What a modifier may do, and does if it says nothing else: no change at all.
struct Unchanged {
  static constexpr float UNIT = LOG2E;  // a score times this is what it takes; it gives scores times LOG2E
  static constexpr bool POSITIONS = false;  // whether `forward` reads positions
  static constexpr bool KEYS = false;  // whether keys add numbers of their own, as `of_key` has them
  static constexpr bool ROW_GRADIENTS = false;  // whether the head has numbers that `of_rows` differentiates

  template <int N>
  struct Kept {};  // what `backward` needs of N vectors

  Unchanged() = default;
  template <class Call>
  Unchanged(const Call&, int64_t, int64_t, int64_t) {}  // of a sequence and a query head; position 0 is this row of k

  // Changes the scores x of V vectors of queries (or keys) with each of N / V keys (or queries): those of x[n] are at
  // positions lane[n % V] and other[n / V].
  template <int N, int V>
  void forward(vec (&)[N], Kept<N>&, const ivec (&)[V], const int*) const {}

  // Turns gradients of the scores that `forward` gave into those of the scores that it took.
  template <int N>
  void backward(vec (&)[N], const Kept<N>&) const {}

  // What the key at a position adds to the scores that `forward` gave; -inf: no query sees the key.
  float of_key(int) const { return 0.0f; }

  // Changes the maximum and the sum with which the soft-max of each row starts.
  void start(float&, float&) const {}

  // Writes the gradients of the head's numbers, from the LSE in base 2 and the delta of each row, both [B, H, Nq].
  template <class Call>
  void of_rows(const Call&, int64_t, const float*, const float*) const {}
};

// What each of these keys adds.
template <class Modifiers>
inline vec of_keys(const Modifiers& modifiers, ivec key) {
  vec found = {};
  if constexpr (Modifiers::KEYS)
    for (int n = 0; n < LANES; ++n) found[n] = modifiers.of_key(key[n]);
  return found;
}

// The score x of a key that adds `more`; what a key that is not seen holds may be NaN.
inline vec added(vec x, vec more) { return more == splat(-INF) ? more : x + more; }

// Whether a key is seen, as far as it is for the modifiers to say; and the mask of several.
template <class Modifiers>
inline bool keeps(const Modifiers& modifiers, int key) {
  return !Modifiers::KEYS || modifiers.of_key(key) != -INF;
}
template <class Modifiers>
inline ivec keeps(const Modifiers& modifiers, ivec key) {
  if constexpr (Modifiers::KEYS) return of_keys(modifiers, key) != splat(-INF);
  else return splat(-1);
}

// Whether all of the keys first .. stop - 1 are.
template <class Modifiers>
inline bool keeps_all(const Modifiers& modifiers, int first, int stop) {
  if constexpr (Modifiers::KEYS)
    for (int key = first; key < stop; ++key)
      if (!keeps(modifiers, key)) return false;
  return true;
}

typedef Unchanged Modifiers;

// ---- The online soft-max step: one panel of queries over the keys of one tile.
typedef Split<KEY_TILE> KeySplit;

struct Keys {  // the keys of one tile to attend to, in order; ROWS more entries, so that every block is whole
  int count;
  const operand *key[KEY_TILE + ROWS], *value[KEY_TILE + ROWS];
  bool finite;  // all values; set where a mask is
  int at[KEY_TILE + ROWS];  // their positions; set where a modifier reads them
};

typedef Operands::Across<DV, KEY_TILE + ROWS> Values;  // of those keys, with units along the keys

struct Panel {
  operand q[units_of(D)][PANEL * DEPTH];  // as `Operands::scale` leaves it
  float factor;  // the score's scale
  float o[DV][PANEL];  // the sum of weights times values, relative to 2^peak
  vec peak[VECS];  // within 8 below the largest score so far; -inf before the first live key
  vec total[VECS];  // the sum of weights, relative to 2^peak
  ivec at[VECS];  // positions of the queries
};

// s[r][lane] = the score of key[r], at position at[r], and the panel's query in that lane, or -inf where the mask is 0;
// `peak` follows the largest.
template <int R, bool MASKED>
__attribute__((noinline)) void score(const Panel& panel, const operand* const* key, const int* at, Modifiers modifiers,
                                     const ivec (*mask)[VECS], float (*s)[PANEL], vec* peak) {
  vec sum[R][VECS] = {};
#pragma GCC unroll 4
  for (int d = 0; d < units_of(D); ++d) {
    Operands::units x[VECS];
    EACH(v, VECS) x[v] = Operands::read(panel.q[d] + v * LANES * DEPTH);
    EACH(r, R) EACH(v, VECS) sum[r][v] = Operands::add(sum[r][v], Operands::spread(key[r] + d * DEPTH), x[v]);
  }
  EACH(r, R) {
    EACH(v, VECS) sum[r][v] = Operands::scaled(sum[r][v], panel.factor);
    Modifiers::Kept<VECS> kept;
    modifiers.forward(sum[r], kept, panel.at, at + r);
    if constexpr (Modifiers::KEYS) {
      const float more = modifiers.of_key(at[r]);
      EACH(v, VECS) sum[r][v] += more;
    }
  }
  EACH(r, R) EACH(v, VECS) {
    if (MASKED) sum[r][v] = mask[r][v] ? sum[r][v] : splat(-INF);
    peak[v] = maximum(sum[r][v], peak[v]);
    store(s[r] + v * LANES, sum[r][v]);
  }
}

// 0 for -inf, so that a score of -inf minus it is -inf and never NaN.
inline vec finite(vec peak) { return peak == splat(-INF) ? vec{} : peak; }

// Moves a row's peak once a weight would pass 2^8; until then nothing needs rescaling. Rows do not affect each other.
inline void rescale(Panel& panel, const vec* largest, vec lowest) {
  ivec moved = {};
  vec peak[VECS], factor[VECS];
  EACH(v, VECS) {
    const ivec up = largest[v] > panel.peak[v] + 8.0f;
    peak[v] = up ? largest[v] : panel.peak[v];
    factor[v] = panel.peak[v] - finite(peak[v]);
    moved |= up;
  }
  if (!any(moved)) return;
  exp2(factor, lowest);
  EACH(v, VECS) {
    panel.peak[v] = peak[v];
    panel.total[v] *= factor[v];
  }
  for (int d = 0; d < DV; ++d) EACH(v, VECS) store(panel.o[d] + v * LANES, load(panel.o[d] + v * LANES) * factor[v]);
}

// The number of keys is even; `value` are their values, with units along the keys. `s` is scratch for scores, then
// weights.
template <bool MASKED>
__attribute__((noinline)) void attend(Panel& panel, const Keys& keys, const operand* const* value, Modifiers modifiers,
                                      const ivec (*mask)[VECS], float (*s)[PANEL]) {
  const vec lowest = splat(LOWEST_EXPONENT);
  const int count = keys.count;
  vec largest[VECS], shift[VECS], total[VECS];
  EACH(v, VECS) largest[v] = panel.peak[v];
  int n = 0;
  for (; n < minimum(count, KeySplit::LARGE_END); n += KeySplit::LARGE)
    score<KeySplit::LARGE, MASKED>(panel, keys.key + n, keys.at + n, modifiers, mask + n, s + n, largest);
  for (; n < count; n += KeySplit::SIZE)
    score<KeySplit::SIZE, MASKED>(panel, keys.key + n, keys.at + n, modifiers, mask + n, s + n, largest);

  rescale(panel, largest, lowest);
  EACH(v, VECS) {
    shift[v] = finite(panel.peak[v]);
    total[v] = panel.total[v];
  }
  operand* const weights = (operand*)s[0];
  for (n = 0; n < count; n += 2) {
    vec p[2 * VECS];
    EACH(v, 2 * VECS) p[v] = load(s[n] + v * LANES) - shift[v % VECS];
    exp2(p, lowest);
    EACH(v, 2 * VECS) total[v % VECS] += p[v];
    Operands::store_two<VECS>(p, weights + n * PANEL, PANEL);
  }
  EACH(v, VECS) panel.total[v] = total[v];
  if (!MASKED || keys.finite) accumulate<PANEL>(value, count / DEPTH, weights, panel.o);
  else accumulate_seen<PANEL>(value, count / DEPTH, weights, mask, panel.o);
}

// ---- Tiles: one query tile of one head, and a key tile that it sees in full or through a mask.
struct Work {  // one thread's scratch
  Panel panel[PANELS];
  float s[KEY_TILE + ROWS][PANEL];
  ivec mask[KEY_TILE + ROWS][VECS];
  operand key[KEY_TILE][row_of(D)], value[KEY_TILE][row_of(DV)], query[QUERY_TILE][row_of(D)];
  Values values;  // of the tile at hand
  float rows[QUERY_TILE][WIDEST];
  Keys tile, live;
  ivec lane[VECS];  // 0, 1, ..., PANEL - 1
  Source source;  // of keys and values
  Inputs inputs;  // of the pattern
  Gathered gathered;  // the keys that rows list themselves
  Modifiers modifiers;  // of the head's scores
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
      attend<false>(w.panel[p], w.tile, w.values.of(w.tile.value, KEY_TILE), w.modifiers, w.mask, w.s);
      continue;
    }
    for (int n = count; n < count + ROWS; ++n) {  // whole blocks: the last key again, seen by nobody
      w.live.key[n] = w.live.key[count - 1];
      w.live.value[n] = w.live.value[count - 1];
      if constexpr (Modifiers::POSITIONS || Modifiers::KEYS) w.live.at[n] = w.live.at[count - 1];
      EACH(v, VECS) w.mask[n][v] = ivec{};
    }
    w.live.count = count + count % 2;
    attend<true>(w.panel[p], w.live, w.values.of(w.live.value, w.live.count), w.modifiers, w.mask, w.s);
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
  const operand* const* values = w.values.of(w.tile.value, w.tile.count);
  for (int p = w.first_panel(); p <= w.last_panel(); ++p)
    attend<false>(w.panel[p], w.tile, values, w.modifiers, w.mask, w.s);
}

// ---- Between rows and panels: LANES x LANES numbers are transposed in registers, head dims that are left one by one.
template <int... N>
inline vec pick(vec a, vec b) {  // numbers N of a and b, those of b from LANES on
#if defined(__clang__)
  return __builtin_shufflevector(a, b, N...);
#else
  return __builtin_shuffle(a, b, ivec{N...});
#endif
}

// The numbers of a and b in turn.
template <int... N>
inline void zip(vec a, vec b, vec& low, vec& high, std::integer_sequence<int, N...>) {
  low = pick<(N / 2 + N % 2 * LANES)...>(a, b);
  high = pick<(LANES / 2 + N / 2 + N % 2 * LANES)...>(a, b);
}

// to[c][r] = from[r][c], in rows that are `width` and `apart` numbers apart. Each round takes rows r and r + LANES / 2.
__attribute__((noinline)) void transpose_block(const float* from, int width, float* to, int apart) {
  vec x[LANES];
  EACH(r, LANES) x[r] = load(from + r * width);
  EACH(round, LANES == 16 ? 4 : LANES == 8 ? 3 : 2) {
    vec y[LANES];
    EACH(r, LANES / 2) zip(x[r], x[r + LANES / 2], y[2 * r], y[2 * r + 1], std::make_integer_sequence<int, LANES>());
    EACH(r, LANES) x[r] = y[r];
  }
  EACH(r, LANES) store(to + r * apart, x[r]);
}

// Lane n of to[d] = unit d of row n, of PANEL rows `width` operands apart.
template <class T, int N, int M>
inline void to_panel(const T* row, int width, T (&to)[N][M]) {
  constexpr int UNIT = M / PANEL, WORD = sizeof(float) / sizeof(T);
  static_assert(UNIT == WORD, "a unit is as long as a float");
  int d = 0;
  for (; d + LANES <= N; d += LANES) EACH(v, VECS) {
      const T* from = row + v * LANES * width + d * UNIT;
      transpose_block((const float*)from, width / WORD, (float*)(to[d] + v * LANES * UNIT), PANEL);
    }
  for (; d < N; ++d)
    for (int n = 0; n < PANEL; ++n) std::memcpy(to[d] + n * UNIT, row + n * width + d * UNIT, sizeof(float));
}

// row[n][d] = from[d][n].
template <int N>
inline void from_panel(const float (&from)[N][PANEL], float* row, int width) {
  int d = 0;
  for (; d + LANES <= N; d += LANES)
    EACH(v, VECS) transpose_block(from[d] + v * LANES, PANEL, row + v * LANES * width + d, width);
  for (; d < N; ++d)
    for (int n = 0; n < PANEL; ++n) row[n * width + d] = from[d][n];
}

// ---- Panels: the queries of a tile across lanes, and what their rows have at the end.
void load_queries(Work& w, const Matrix& q, float scale) {
  const float factor = scale * Modifiers::UNIT;
  float peak = -INF, total = 0.0f;
  w.modifiers.start(peak, total);
  // Absent rows score 0 and are never stored.
  if (w.i1 - w.i0 + 1 < QUERY_TILE || D % DEPTH != 0) std::memset(w.query, 0, sizeof w.query);
  load_rows<D>(q, w.i0, w.i1 - w.i0 + 1, w.query[w.i0 - w.base], row_of(D));
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) {
    Panel& panel = w.panel[p];
    to_panel(w.query[p * PANEL], row_of(D), panel.q);
    Operands::scale(panel.q[0], units_of(D) * VECS, factor);
    panel.factor = factor;
    std::memset(panel.o, 0, sizeof panel.o);
    EACH(v, VECS) panel.peak[v] = splat(peak), panel.total[v] = splat(total);
    EACH(v, VECS) panel.at[v] = w.lane[v] + (w.base + p * PANEL);
  }
}

// Divides and stores the rows that are present; a row without a live key becomes 0, its lse what it started with.
void finish(Work& w, element* out, int64_t row, int64_t dim, float* lse, int64_t lse_row) {
  for (int p = w.first_panel(); p <= w.last_panel(); ++p) from_panel(w.panel[p].o, w.rows[p * PANEL], WIDEST);
  for (int i = w.i0; i <= w.i1; ++i) {
    const Panel& panel = w.panel[(i - w.base) / PANEL];
    const int n = (i - w.base) % PANEL, v = n / LANES, lane = n % LANES;
    const float* o = w.rows[i - w.base];
    const float total = panel.total[v][lane], inverse = total == 0.0f ? 0.0f : 1.0f / total;
    for (int d = 0; d < DV; ++d) out[(i - w.i0) * row + d * dim] = narrow(o[d] * inverse);
    lse[(i - w.i0) * lse_row] = total == 0.0f ? -INF : (panel.peak[v][lane] + std::log2(total)) * 0.6931471806f;
  }
}

// ---- Parts: stretches of the sequence that attend only within themselves.
struct Part {
  int q0, q1;  // positions of its queries
  int begin, end;  // positions of its keys
  int n_k;  // the number of keys that the pattern reckons with
  int64_t q_row, k_row;  // the rows of q and k at position 0
};

// The whole sequence is one.
template <class Call>
int64_t count_parts(const Call&) {
  return 1;
}

template <class Call>
Part part_of(const Call& call, int64_t) {
  const int q0 = int(call.q0), n_k = int(call.n_k);
  return {q0, q0 + int(call.n_q), 0, n_k, n_k, -call.q0, 0};
}

struct Tile {
  Part part;
  int base;  // positions base .. base + size - 1 of the part, as far as it has them
  int64_t number;  // of the part
};

// The tiles of every part's queries (or keys), part after part; a tile starts at a multiple of its size.
template <class Call>
struct Tiling {
  const Call& call;
  const int size;
  const bool of_keys;
  const int64_t parts;
  const std::unique_ptr<int64_t[]> before;  // tiles before each part; null if memory ran out

  Tiling(const Call& call, int size, bool of_keys)
      : call(call),
        size(size),
        of_keys(of_keys),
        parts(count_parts(call)),
        before(new (std::nothrow) int64_t[parts + 1]) {
    if (!before) return;
    before[0] = 0;
    for (int64_t n = 0; n < parts; ++n) {
      const Part part = part_of(call, n);
      const int stop = of_keys ? part.end : part.q1;
      before[n + 1] =
          before[n] + (first(part) < stop ? floor_div(stop - 1, size) - floor_div(first(part), size) + 1 : 0);
    }
  }
  int first(const Part& part) const { return of_keys ? part.begin : part.q0; }
  int64_t count() const { return before[parts]; }
  Tile operator[](int64_t n) const {
    const int64_t* after = std::upper_bound(before.get(), before.get() + parts + 1, n);
    const int64_t number = after - before.get() - 1;
    const Part part = part_of(call, number);
    return {part, (floor_div(first(part), size) + int(n - after[-1])) * size, number};
  }
};

// ---- Tasks: every query tile of every head, the longest rows first; each is computed whole by one thread.
// Of TOGETHER heads from `head` on.
void run_task(Work& w, const sparsec_call& call, int64_t b, int64_t head, const Tile& tile) {
  const Part& part = tile.part;
  w.base = tile.base;
  w.i0 = maximum(w.base, part.q0);
  w.i1 = minimum(w.base + QUERY_TILE, part.q1) - 1;
  w.begin = part.begin, w.end = part.end, w.n_k = part.n_k;
  w.source = source_of(call, b, head, part.k_row);
  w.inputs = Inputs(call, b, part.q_row, part.k_row, part.n_k);
  gather_rows(w, call, b, head, part.q_row, part.k_row);
  for (int64_t h = head; h < head + TOGETHER; ++h) {
    w.modifiers = Modifiers(call, b, h, part.k_row);
    load_queries(w, matrix(call.q, call.q_stride, b, h, part.q_row), call.scale);
    resume(w, h - head);
    visit(w, call.lists, int(h));
    const int64_t r = w.i0 + part.q_row;
    element* out = (element*)call.out + b * call.out_stride[0] + h * call.out_stride[1] + r * call.out_stride[2];
    float* lse = call.lse + b * call.lse_stride[0] + h * call.lse_stride[1] + r * call.lse_stride[2];
    finish(w, out, call.out_stride[2], call.out_stride[3], lse, call.lse_stride[2]);
  }
}

int forward(const sparsec_call& call) {
  const Tiling<sparsec_call> tiling(call, QUERY_TILE, false);
  if (!tiling.before) return 1;
  const int64_t tiles = tiling.count(), heads = HEADS / TOGETHER, tasks = call.batch * heads * tiles;
  if (tasks == 0) return 0;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int n = 0; n < PANEL && w; ++n) w->lane[n / LANES][n % LANES] = n;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task)  // head by head, for their keys stay in the cache; last rows first
      if (w)
        run_task(*w, call, task / tiles / heads, task / tiles % heads * TOGETHER, tiling[tiles - 1 - task % tiles]);
    std::free(w);
  }
  return failed;
}

// In the library, for its manifest.
__attribute__((used)) const struct {
  char entry[48];
  Name name;
} MICRO_KERNEL = {"sparsec micro-kernel of forward", Operands::NAME};

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 9: window(16b) & line 7: causal
// line 9: stride(16b) & line 7: causal
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  static const int c0_of_head[HEADS] = {0, 0, 15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9};
  [[maybe_unused]] const int c0 = c0_of_head[head];
  const int hi0 = maximum(minimum(nk, i1 + 1), 0);
  const int from0 = minimum(maximum(0, (i0 >> 6) - 15), (nk >> 6));
  const int to0 = maximum(from0, maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, (i0 >> 6) - 15);
  const int full_to0 = maximum(full_from0, maximum(maximum(0, (i0 >> 6) - 15), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0)));
  const int count0 = maximum(full_to0 - full_from0, 0);
  const int count1 = maximum(minimum(stop0, full_from0) - from0, 0);
  const int at0 = maximum(from0, full_to0);
  const int count2 = maximum(stop0 - at0, 0);
  const int to1 = ((0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i1 + 64) >> 6)), 0) : 0);
  const int full_to1 = maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0);
  const int until0 = minimum(to1, from0);
  const int until1 = minimum(until0, full_to1);
  const int first_tile0 = (c0 & 15);
  const int count3 = ((until1 + 16 - first_tile0 + 15) >> 4) - 1;
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((((i >> 6) * 64 - 960 < j + 1) & (j < i + 1)) | ((j < i + 1) & truth((((j >> 6) - c0) & 15) < 1))); };
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count0; n < count; ++n) {
    const int tile = full_from0 + n;
    attend_full(w, tile);
  }
  // line 9: stride(16b) & line 7: causal
  for (int n = 0, count = count3; n < count; ++n) {
    const int tile = (n + 1) * 16 - 16 + first_tile0;
    attend_full(w, tile);
  }
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count1; n < count; ++n) {
    const int tile = from0 + n;
    attend_masked(w, tile, live);
  }
  // line 9: window(16b) & line 7: causal
  for (int n = 0, count = count2; n < count; ++n) {
    const int tile = at0 + n;
    attend_masked(w, tile, live);
  }
}

void visit(Work& w, const sparsec_list* lists, int head) {
  static const int class_of_head[HEADS] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  switch (class_of_head[head]) {
    case 0: visit_class_0(w, lists, head); break;
  }
}

}  // namespace
}  // namespace sparsec_kernel

// Returns 0, or 1 when memory ran out.
extern "C" int sparsec_forward(const sparsec_call* call) { return sparsec_kernel::forward(*call); }
