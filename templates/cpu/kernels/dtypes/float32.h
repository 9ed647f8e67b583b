#pragma once

// ---- Elements: tensors hold float32; all arithmetic is float32.
typedef float element;
inline float widen(float x) { return x; }
inline float narrow(float x) { return x; }
