#pragma once
#include "bits.h"

// ---- Float16; all arithmetic is float32.
struct Float16 {
  typedef uint16_t type;
  static constexpr int BESIDE = 0;  // of a row's numbers, what else it holds
  static float widen(type x) {  // the multiplication by 2^112 moves the exponent and normalises the subnormal
    const float magnitude = float_of(uint32_t(x & 0x7fff) << 13) * 5.192296858534828e33f;
    const uint32_t special = (x & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
    return float_of(bits_of(magnitude) | special | uint32_t(x & 0x8000) << 16);
  }
  static type narrow(float x) {  // to nearest, ties to even
    const uint32_t b = bits_of(x), sign = (b >> 16) & 0x8000, m = b & 0x7fffffff;
    if (m >= 0x47800000) return sign | (m > 0x7f800000 ? 0x7e00 : 0x7c00);
    if (m < 0x38800000) return sign | (bits_of(float_of(m) + 0.5f) - 0x3f000000);  // the addition rounds a subnormal
    return sign | ((m - 0x38000000 + 0xfff + ((m >> 13) & 1)) >> 13);
  }
};
