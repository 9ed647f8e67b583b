#pragma once
#include "../vectors.h"

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
