#pragma once
#include "bits.h"

// ---- Bfloat16: the upper half of a float32; all arithmetic is float32.
struct Bfloat16 {
  typedef uint16_t type;
  static constexpr int BESIDE = 0;  // of a row's numbers, what else it holds
  static float widen(type x) { return float_of(uint32_t(x) << 16); }
  static type narrow(float x) {  // to nearest, ties to even
    const uint32_t b = bits_of(x);
    return (b & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : type((b + 0x7fff + ((b >> 16) & 1)) >> 16);
  }
};
