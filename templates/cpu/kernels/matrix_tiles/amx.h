#pragma once
#include "../keys_at_hand.h"
#include "../transpose.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include <immintrin.h>
#endif
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include <syscall.h>
#endif
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include <unistd.h>
#endif

// ---- Products of the keys of one tile with panels: by a matrix unit where the processor has one and the system lets
// the process use it, else by the micro-kernels.
#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)
// The system keeps the matrices of a thread only for a process that has asked for it, once for all its threads.
inline bool may_use_matrices() {
  constexpr long ASK_FOR_STATE = 0x1023, MATRICES = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool may = syscall(SYS_arch_prctl, ASK_FOR_STATE, MATRICES) == 0;
  return may;
}

constexpr int MATRIX = 16;  // rows, and words of a row, at most
constexpr int COLUMNS = PANEL / MATRIX;
static_assert(DEPTH == 2 && PANEL % MATRIX == 0 && COLUMNS <= 2, "a panel is whole matrices");

// The largest part of n, at most MATRIX, of which n is a multiple.
constexpr int part_of_matrix(int n) {
  int part = n < MATRIX ? n : MATRIX;
  while (n % part != 0) --part;
  return part;
}

struct alignas(64) Shapes {  // of the eight matrices, as the processor reads them
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// Sums in matrices 0 to 3, M rows of MATRIX floats; 4 and 5 of M rows of K units; 6 and 7 of K rows of MATRIX units.
template <int M, int K>
constexpr Shapes shapes() {
  Shapes to = {};
  to.palette = 1;
  for (int n = 0; n < 8; ++n) {
    to.rows[n] = n < 6 ? M : K;
    to.row_bytes[n] = (n == 4 || n == 5 ? K : MATRIX) * sizeof(float);
  }
  return to;
}
template <int M, int K>
constexpr Shapes SHAPES = shapes<M, K>();

// to[n][lane] = the product of row n of a, `apart` bytes each, and of b[..][lane], of `steps` times K units, for
// `blocks` times M rows; ADD: added to what is there. The matrices have SHAPES<M, K>.
template <int M, int K, bool ADD>
__attribute__((noinline)) void matrix_product(const operand* a, int64_t apart, int blocks, const operand* b, int steps,
                                              float (*to)[PANEL]) {
  constexpr int64_t WIDTH = PANEL * sizeof(float);
  __asm__ volatile("" ::: "memory");  // compilers do not know that what follows reads memory
  for (int m = 0; m < blocks; m += 2) {
    const bool both = m + 1 < blocks;
    float *const upper = to[m * M], *const lower = upper + M * PANEL;
    if constexpr (ADD) {
      _tile_loadd(0, upper, WIDTH);
      if constexpr (COLUMNS == 2) _tile_loadd(1, upper + MATRIX, WIDTH);
      if (both) {
        _tile_loadd(2, lower, WIDTH);
        if constexpr (COLUMNS == 2) _tile_loadd(3, lower + MATRIX, WIDTH);
      }
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    const char* from = (const char*)a + m * M * apart;
    const operand* units = b;
    for (int k = 0; k < steps; ++k, from += K * sizeof(float), units += K * PANEL * DEPTH) {
      _tile_loadd(6, units, WIDTH);
      if constexpr (COLUMNS == 2) _tile_loadd(7, units + MATRIX * DEPTH, WIDTH);
      _tile_loadd(4, from, apart);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (COLUMNS == 2) _tile_dpbf16ps(1, 4, 7);
      if (both) {
        _tile_loadd(5, from + M * apart, apart);
        _tile_dpbf16ps(2, 5, 6);
        if constexpr (COLUMNS == 2) _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, upper, WIDTH);
    if constexpr (COLUMNS == 2) _tile_stored(1, upper + MATRIX, WIDTH);
    if (both) {
      _tile_stored(2, lower, WIDTH);
      if constexpr (COLUMNS == 2) _tile_stored(3, lower + MATRIX, WIDTH);
    }
  }
}

struct MatrixProducts : PanelProducts {
  static constexpr Name NAME = {"pairs of bfloat16, tdpbf16ps or vdpbf16ps"};
  static constexpr int KEYS = MATRIX, KEY_UNITS = part_of_matrix(units_of(D));
  static constexpr int DIMS = part_of_matrix(DV), VALUE_UNITS = part_of_matrix(KEY_TILE / DEPTH);
  static constexpr bool ONE_SHAPE = KEYS == DIMS && KEY_UNITS == VALUE_UNITS;
  static constexpr int UNIT_ROWS = VALUE_UNITS * DEPTH;  // keys of one step
  alignas(64) operand key[KEY_TILE][row_of(D)];  // where they do not lie evenly, or are no whole matrices
  alignas(64) operand across[DV][KEY_TILE];  // the values, with units along the keys
  const operand* first_key;
  int64_t apart;  // bytes from key to key
  bool by_matrices;

  // From `start` to `stop` the thread's matrices are this object's.
  void start() {
    by_matrices = may_use_matrices();
    if (by_matrices) _tile_loadconfig((&SHAPES<KEYS, KEY_UNITS>));
  }
  void stop() {
    if (by_matrices) _tile_release();
  }

  static int round_up(int n, int of) { return (n + of - 1) / of * of; }

  void point_keys(const Keys& keys) {
    const int count = keys.count;
    const auto at = [&keys](int n) { return (int64_t)(intptr_t)keys.key[n]; };
    first_key = keys.key[0], apart = at(1) - at(0);
    bool even = count % KEYS == 0;
    for (int n = 2; n < count; ++n) even &= at(n) - at(n - 1) == apart;
    if (even) return;
    for (int n = 0; n < count; ++n) std::memcpy(key[n], keys.key[n], sizeof key[n]);
    std::memset(key[count], 0, (round_up(count, KEYS) - count) * sizeof key[0]);
    first_key = key[0], apart = sizeof key[0];
  }

  void lay_values(const Keys& keys) {
    constexpr int UNITS = KEY_TILE / DEPTH;
    const int count = keys.count / DEPTH, stop = round_up(count, VALUE_UNITS);
    for (int n = count; n < stop; ++n) std::memset(values.pairs[n], 0, sizeof values.pairs[n]);
    constexpr int BLOCKS = UNITS % LANES == 0 ? DV / LANES * LANES : 0;  // of dims that are transposed in registers
    for (int d = 0; d < BLOCKS; d += LANES)
      for (int n = 0; n < stop; n += LANES)
        transpose_block((const float*)(values.pairs[n] + d * DEPTH), DV, (float*)(across[d] + n * DEPTH), UNITS);
    if constexpr (BLOCKS < DV)
      for (int d = BLOCKS; d < DV; ++d)
        for (int n = 0; n < stop; ++n)
          std::memcpy(across[d] + n * DEPTH, values.pairs[n] + d * DEPTH, DEPTH * sizeof(operand));
  }

  void open(const Keys& keys) {
    PanelProducts::open(keys);
    if (!by_matrices) return;
    point_keys(keys);
    lay_values(keys);
  }

  bool whole() const { return by_matrices; }
  void products(const Panel& panel, int count, float (*s)[PANEL]) const {
    if constexpr (!ONE_SHAPE) _tile_loadconfig((&SHAPES<KEYS, KEY_UNITS>));
    matrix_product<KEYS, KEY_UNITS, false>(first_key, apart, round_up(count, KEYS) / KEYS, panel.q[0],
                                           units_of(D) / KEY_UNITS, s);
  }

  // What is not finite comes last, to the rows that see it: a weight of 0 times it would reach the others.
  __attribute__((noinline, cold)) void add_seen(Panel& panel, const Keys& keys, operand* weights,
                                                const ivec (*mask)[VECS]) {
    const auto finite = [](operand x) { return (x & 0x7f80) != 0x7f80; };
    for (int d = 0; d < DV; ++d)
      for (int n = 0; n < keys.count; ++n)
        if (!finite(across[d][n])) across[d][n] = 0;
    add(panel, keys, weights, mask, false);
    for (int n = 0; n < keys.count; ++n)
      for (int d = 0; d < DV; ++d) {
        if (finite(keys.value[n][d])) continue;
        for (int lane = 0; lane < PANEL; ++lane) {
          const operand weight = weights[(n / DEPTH * PANEL + lane) * DEPTH + n % DEPTH];
          if (mask[n][lane / LANES][lane % LANES])
            panel.o[d][lane] += Element::widen(weight) * Element::widen(keys.value[n][d]);
        }
      }
  }

  void add(Panel& panel, const Keys& keys, operand* weights, const ivec (*mask)[VECS], bool seen) {
    if (!by_matrices) return PanelProducts::add(panel, keys, weights, mask, seen);
    if (seen) return add_seen(panel, keys, weights, mask);
    const int stop = round_up(keys.count, UNIT_ROWS);
    std::memset(weights + keys.count * PANEL, 0, (stop - keys.count) * PANEL * sizeof(operand));
    if constexpr (!ONE_SHAPE) _tile_loadconfig((&SHAPES<DIMS, VALUE_UNITS>));
    matrix_product<DIMS, VALUE_UNITS, true>(across[0], sizeof across[0], DV / DIMS, weights, stop / UNIT_ROWS, panel.o);
  }
};
typedef std::conditional_t<KEY_TILE % MATRIX == 0, MatrixProducts, PanelProducts> Products;
#else
typedef PanelProducts Products;
#endif
