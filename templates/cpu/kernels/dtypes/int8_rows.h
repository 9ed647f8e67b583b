#pragma once
#include "../vectors.h"

// Widens a vector in memory: of each four elements the first to one vector, and so on.
inline void wide(const int8_t* from, vec (&to)[4]) {
  ivec four;
  std::memcpy(&four, from, sizeof four);
  EACH(n, 4) to[n] = __builtin_convertvector((four << (24 - 8 * n)) >> 24, vec);
}
