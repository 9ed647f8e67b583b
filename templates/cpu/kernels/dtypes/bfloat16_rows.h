#pragma once
#include "../vectors.h"

constexpr bool WIDE_IN_ORDER = false;

// Widens a vector in memory: the even elements to one vector, the odd ones to another.
inline void wide(const uint16_t* from, vec (&to)[2]) {
  ivec pairs;
  std::memcpy(&pairs, from, sizeof pairs);
  to[0] = (vec)(pairs << 16);
  to[1] = (vec)(pairs & int(0xffff0000));
}
