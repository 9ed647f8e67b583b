#pragma once
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include "../vectors.h"

#if defined(__AVX2__)
constexpr bool WIDE_IN_ORDER = true;

// Widens a vector in memory: the first quarter of its elements to one vector, and so on.
inline void wide(const int8_t* from, vec (&to)[4]) {
#if defined(__AVX512F__)
  EACH(n, 4) to[n] = (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(from + n * LANES))));
#else
  EACH(n, 4) to[n] = (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)(from + n * LANES))));
#endif
}
#else
constexpr bool WIDE_IN_ORDER = false;

// Widens a vector in memory: of each four elements the first to one vector, and so on.
inline void wide(const int8_t* from, vec (&to)[4]) {
  ivec four;
  std::memcpy(&four, from, sizeof four);
  EACH(n, 4) to[n] = __builtin_convertvector((four << (24 - 8 * n)) >> 24, vec);
}
#endif
