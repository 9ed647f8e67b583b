#pragma once
#include "bits.h"

// ---- Int8: a row of numbers, and after them a float32 that each of them is times.
struct Int8 {
  typedef int8_t type;
  static constexpr int BESIDE = sizeof(float);  // of a row's numbers, what else it holds
  static float widen(type x) { return x; }

  // The factor of a row of numbers whose largest magnitude has these bits: NaN where one is not finite, and 0 where
  // all are too small.
  static float scale_for(uint32_t largest) {
    const float scale = float_of(largest) / 127.0f;
    return largest >= 0x7f800000 ? float_of(0x7fc00000) : scale < 1.17549435e-38f ? 0.0f : scale;
  }
  // Of x times the factor's inverse the nearest integer, ties to even.
  static type rounded(float x) { return type(bits_of(x + 12582912.0f)); }
};
