#pragma once
#if defined(__F16C__)
#include <immintrin.h>
#endif
#include "../vectors.h"

#if defined(__F16C__)
constexpr bool WIDE_IN_ORDER = true;

// Widens a vector in memory: the first half of its elements to one vector, the others to another.
inline void wide(const uint16_t* from, vec (&to)[2]) {
#if defined(__AVX512F__)
  EACH(n, 2) to[n] = (vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(from + n * LANES)));
#else
  EACH(n, 2) to[n] = (vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + n * LANES)));
#endif
}
#else
constexpr bool WIDE_IN_ORDER = false;

inline vec of_half(ivec x) {  // in the upper 16 bits of each lane, the lower ones being 0 or ignored
  const ivec bits = (x >> 3) & int(0x8fffe000);  // the multiplication is that of `widen`, the sign comes along
  const ivec special = ((bits & 0x0f800000) == 0x0f800000) & 0x7f800000;
  return (vec)((ivec)((vec)bits * 5.192296858534828e33f) | special);
}

// Widens a vector in memory: the even elements to one vector, the odd ones to another.
inline void wide(const uint16_t* from, vec (&to)[2]) {
  ivec pairs;
  std::memcpy(&pairs, from, sizeof pairs);
  to[0] = of_half(pairs << 16);
  to[1] = of_half(pairs);
}
#endif
