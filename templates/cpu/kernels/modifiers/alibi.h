#pragma once
#include "unchanged.h"

inline vec distance(ivec a, int b) {
  const ivec away = a - b;
  return __builtin_convertvector(maximum(away, -away), vec);
}

// A score loses the head's slope times the distance of query and key.
struct Alibi : Unchanged {
  static constexpr bool POSITIONS = true;
  float slope;  // times log2(e)

  template <class Call>
  Alibi(const Call&, int64_t, int64_t head, int64_t) : slope(SLOPES[head]) {}

  template <int N, int V>
  void forward(vec (&x)[N], Kept<N>&, const ivec (&lane)[V], const int* other) const {
    EACH(n, N) x[n] -= distance(lane[n % V], other[n / V]) * slope;
  }
};
