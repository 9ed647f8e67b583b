// A model of AMX's instructions for bfloat16 in plain C++, in place of what <immintrin.h> has of them: palette 1, eight
// matrices of at most 16 rows of 64 bytes. What a processor would refuse ends the process with a message, and so does
// what leaves the shapes that a product needs. Sums as Intel's manual has them: the first and the second elements of all
// pairs apart, each a chain of fused operations, then their sum; subnormal numbers are zeros.
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {
int sparsec_model_refuses = 0;  // whether the system refuses the process its matrices
long sparsec_model_asked = 0, sparsec_model_products = 0, sparsec_model_held = 0;  // calls, products, threads that hold
}

namespace amx_model {
struct Config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
struct State {
  Config config;
  alignas(64) uint8_t data[8][16][64];
};
thread_local State state = {};

inline void demand(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "AMX model: %s\n", what);
  std::abort();
}

inline long ask(long number, ...) {
  std::va_list rest;
  va_start(rest, number);
  const long code = va_arg(rest, long), component = va_arg(rest, long);
  va_end(rest);
  demand(number == 158 && code == 0x1023 && component == 18, "arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)");
  ++sparsec_model_asked;
  return sparsec_model_refuses ? -1 : 0;
}

inline void load_config(const void* from) {
  demand(sparsec_model_asked > 0 && !sparsec_model_refuses, "matrices without leave");
  Config config;
  std::memcpy(&config, from, sizeof config);
  demand(config.palette == 1 && config.start_row == 0, "palette 1 from row 0");
  for (uint8_t each : config.reserved) demand(each == 0, "reserved bytes of zero");
  for (int n = 0; n < 16; ++n) {
    demand(config.rows[n] <= 16 && config.row_bytes[n] <= 64, "16 rows of 64 bytes at most");
    demand(n < 8 || (config.rows[n] == 0 && config.row_bytes[n] == 0), "eight matrices");
    demand((config.rows[n] == 0) == (config.row_bytes[n] == 0), "rows and bytes, or neither");
  }
  if (state.config.palette == 0) __atomic_add_fetch(&sparsec_model_held, 1, __ATOMIC_RELAXED);
  state.config = config;
  std::memset(state.data, 0, sizeof state.data);
}

inline void release() {
  if (state.config.palette != 0) __atomic_add_fetch(&sparsec_model_held, -1, __ATOMIC_RELAXED);
  state = State{};
}

inline uint8_t (*matrix(int n))[64] {
  demand(state.config.palette == 1, "matrices that have shapes");
  demand(n >= 0 && n < 8 && state.config.rows[n] > 0, "a matrix of the palette");
  return state.data[n];
}

inline void zero(int n) { std::memset(matrix(n), 0, sizeof state.data[n]); }

inline void load(int n, const void* from, long stride) {
  uint8_t(*to)[64] = matrix(n);
  zero(n);
  for (int row = 0; row < state.config.rows[n]; ++row)
    std::memcpy(to[row], (const uint8_t*)from + row * stride, state.config.row_bytes[n]);
}

inline void store(int n, void* to, long stride) {
  const uint8_t(*from)[64] = matrix(n);
  for (int row = 0; row < state.config.rows[n]; ++row)
    std::memcpy((uint8_t*)to + row * stride, from[row], state.config.row_bytes[n]);
}

inline float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

inline float element(const uint8_t* row, int n) {
  uint16_t half;
  std::memcpy(&half, row + 2 * n, sizeof half);
  const uint32_t bits = uint32_t(half) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return flushed(x);
}

inline void products(int to, int a, int b) {
  uint8_t(*sums)[64] = matrix(to);
  const uint8_t(*x)[64] = matrix(a), (*y)[64] = matrix(b);
  const Config& config = state.config;
  const int rows = config.rows[to], columns = config.row_bytes[to] / 4, units = config.row_bytes[a] / 4;
  demand(to != a && to != b && a != b, "three matrices");
  demand(config.row_bytes[to] % 4 == 0 && config.row_bytes[a] % 4 == 0, "whole units");
  demand(rows == config.rows[a] && units == config.rows[b], "rows of sums and units of both sides that agree");
  demand(config.row_bytes[to] == config.row_bytes[b], "columns that agree");
  for (int m = 0; m < rows; ++m)
    for (int n = 0; n < columns; ++n) {
      float part[2] = {}, sum;
      for (int k = 0; k < units; ++k)
        for (int i = 0; i < 2; ++i)
          part[i] = flushed(std::fma(element(x[m], 2 * k + i), element(y[k], 2 * n + i), part[i]));
      std::memcpy(&sum, sums[m] + 4 * n, sizeof sum);
      sum = flushed(flushed(sum) + flushed(part[0] + part[1]));
      std::memcpy(sums[m] + 4 * n, &sum, sizeof sum);
    }
  __atomic_add_fetch(&sparsec_model_products, 1, __ATOMIC_RELAXED);
}
}  // namespace amx_model

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define syscall amx_model::ask
#define _tile_loadconfig amx_model::load_config
#define _tile_release amx_model::release
#define _tile_zero amx_model::zero
#define _tile_loadd amx_model::load
#define _tile_stored amx_model::store
#define _tile_dpbf16ps amx_model::products
