#pragma once

// ---- Elements: tensors hold float32; all arithmetic is float32.
typedef float element;
constexpr bool PACK = false;  // rows of contiguous floats are read in place
inline float widen(float x) { return x; }
inline float narrow(float x) { return x; }
