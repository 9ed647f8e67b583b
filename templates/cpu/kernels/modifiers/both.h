#pragma once
#include "unchanged.h"

// Two modifiers, one after the other, are a modifier.
template <class First, class Second>
struct Both {
  static_assert(Second::UNIT == LOG2E, "only the first takes scores in a unit of its own");
  static constexpr float UNIT = First::UNIT;
  static constexpr bool POSITIONS = First::POSITIONS || Second::POSITIONS;
  static constexpr bool KEYS = First::KEYS || Second::KEYS;
  static constexpr bool ROW_GRADIENTS = First::ROW_GRADIENTS || Second::ROW_GRADIENTS;

  template <int N>
  struct Kept {
    typename First::template Kept<N> first;
    typename Second::template Kept<N> second;
  };

  First first;
  Second second;

  template <class Call>
  Both(const Call& call, int64_t b, int64_t head, int64_t k_row)
      : first(call, b, head, k_row), second(call, b, head, k_row) {}

  template <int N, int V>
  void forward(vec (&x)[N], Kept<N>& kept, const ivec (&lane)[V], const int* other) const {
    first.forward(x, kept.first, lane, other);
    second.forward(x, kept.second, lane, other);
  }
  template <int N>
  void backward(vec (&gradient)[N], const Kept<N>& kept) const {
    second.backward(gradient, kept.second);
    first.backward(gradient, kept.first);
  }
  float of_key(int key) const { return first.of_key(key) + second.of_key(key); }
  void start(float& peak, float& total) const { first.start(peak, total), second.start(peak, total); }
  template <class Call>
  void of_rows(const Call& call, int64_t head, const float* lse, const float* delta) const {
    first.of_rows(call, head, lse, delta), second.of_rows(call, head, lse, delta);
  }
};
