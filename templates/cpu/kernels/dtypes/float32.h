#pragma once

// ---- Float32: numbers as they are.
struct Float32 {
  typedef float type;
  static constexpr int BESIDE = 0;  // of a row's numbers, what else it holds
  static float widen(float x) { return x; }
  static float narrow(float x) { return x; }
};
