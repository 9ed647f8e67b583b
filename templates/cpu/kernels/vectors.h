#pragma once
#include <cstdint>
#include <cstring>
#include <utility>

#include "printed/config.h"

// ---- Vectors: LANES numbers; a panel is VECS vectors, a register block ROWS sums x one panel.
struct Name {
  char text[48];
};
#if defined(__AVX512F__)
constexpr int LANES = 16, VECS = LANE_TILE % 32 == 0 ? 2 : 1, ROWS = 8;
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
typedef uint32_t uvec __attribute__((vector_size(LANES * sizeof(uint32_t))));  // sums wrap around

constexpr float INF = __builtin_inff(), LOG2E = 1.4426950409f;

inline vec splat(float x) { return x - vec{}; }
inline ivec splat(int x) { return x - ivec{}; }
inline vec load(const float* p) {
  vec x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline void store(float* p, vec x) { std::memcpy(p, &x, sizeof x); }
// x, in a register: for some processors GCC would read it again from memory at each use.
template <class Vector>
inline Vector in_register(Vector x) {
#if defined(__x86_64__)
  asm("" : "+v"(x));
#elif defined(__aarch64__)
  asm("" : "+w"(x));
#endif
  return x;
}
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

#if defined(__AVX512F__)
inline bool any(ivec x) {
  uint16_t lanes;
  asm("vptestmd %1, %1, %0" : "=Yk"(lanes) : "v"(x));
  return lanes != 0;
}
#else
inline bool any(ivec x) {
  typedef int64_t wide __attribute__((vector_size(sizeof(ivec))));
  const wide w = (wide)x;
  int64_t bits = 0;
  for (unsigned n = 0; n < sizeof(ivec) / sizeof(int64_t); ++n) bits |= w[n];
  return bits != 0;
}
#endif

// A loop of few trips that is always unrolled, so that small arrays of vectors live in registers.
#if defined(__clang__)
#define EACH(n, N) _Pragma("unroll") for (int n = 0; n < (N); ++n)
#else
#define EACH(n, N) _Pragma("GCC unroll 32") for (int n = 0; n < (N); ++n)
#endif

template <int... N>
inline vec pick(vec a, vec b) {  // numbers N of a and b, those of b from LANES on
#if defined(__clang__)
  return __builtin_shufflevector(a, b, N...);
#else
  return __builtin_shuffle(a, b, ivec{N...});
#endif
}

// `of` all lanes, two halves at a time; where the order matters to it, it is always the same.
template <int W, class Of, int... N>
inline vec with_partners(vec x, const Of& of, std::integer_sequence<int, N...> numbers) {
  x = of(x, pick<(N ^ W)...>(x, x));
  if constexpr (W == 1) return x;
  else return with_partners<W / 2>(x, of, numbers);
}
template <class Of>
inline float over_lanes(vec x, const Of& of) {
  return with_partners<LANES / 2>(x, of, std::make_integer_sequence<int, LANES>())[0];
}

const volatile float LOWEST_EXPONENT = -127.0f;  // opaque: against a constant GCC takes two instructions for a maximum

// 2^x for x <= 100, relative error 1.1e-7; exactly 1 at 0, exactly 0 at -inf; NaN stays NaN; any number above 100. The
// vectors go step by step side by side, because one alone would wait for itself. `lowest` is LOWEST_EXPONENT in every
// lane.
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
  EACH(n, N) x[n] = (vec)((uvec)p[n] + ((uvec)shifted[n] << 23));
}

// The logarithm of x > 0 to base 2, off by at most 1e-7 and half a unit in the last place; infinity and NaN stay.
inline vec log2(vec x) {
  const ivec exponent = (ivec)((uvec)x - 0x3f3504f3u) >> 23;  // of x, as if numbers ended at the square root of 2
  const vec f = (vec)((uvec)x - ((uvec)exponent << 23)) - 1.0f;
  vec p = f * 1.228052825e-1f - 2.057056129e-1f;
  p = p * f + 2.161191255e-1f;
  p = p * f - 2.391948998e-1f;
  p = p * f + 2.879017591e-1f;
  p = p * f - 3.606921136e-1f;
  p = p * f + 4.809107780e-1f;
  p = p * f - 7.213475108e-1f;
  p = p * f + 1.442695022f;
  return x < splat(INF) ? p * f + __builtin_convertvector(exponent, vec) : x;
}
