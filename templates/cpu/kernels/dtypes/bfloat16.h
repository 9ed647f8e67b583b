#pragma once
#include "bits.h"

// ---- Elements: tensors hold bfloat16; all arithmetic is float32.
typedef uint16_t element;
inline float widen(element x) { return float_of(uint32_t(x) << 16); }
inline element narrow(float x) {  // to nearest, ties to even
  const uint32_t b = bits_of(x);
  return (b & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : element((b + 0x7fff + ((b >> 16) & 1)) >> 16);
}
