#pragma once
#include "../vectors.h"

// ---- Score modifiers: what the pattern does to scores, in base 2 and many at a time.

// What a modifier may do, and does if it says nothing else: no change at all.
struct Unchanged {
  static constexpr float UNIT = LOG2E;  // a score times this is what it takes; it gives scores times LOG2E
  static constexpr bool POSITIONS = false;  // whether `forward` reads positions
  static constexpr bool ROW_GRADIENTS = false;  // whether the head has numbers that `of_rows` differentiates

  template <int N>
  struct Kept {};  // what `backward` needs of N vectors

  Unchanged() = default;
  template <class Call>
  Unchanged(const Call&, int64_t) {}  // of one query head

  // Changes the scores x of V vectors of queries (or keys) with each of N / V keys (or queries): those of x[n] are at
  // positions lane[n % V] and other[n / V].
  template <int N, int V>
  void forward(vec (&)[N], Kept<N>&, const ivec (&)[V], const int*) const {}

  // Turns gradients of the scores that `forward` gave into those of the scores that it took.
  template <int N>
  void backward(vec (&)[N], const Kept<N>&) const {}

  // Changes the maximum and the sum with which the soft-max of each row starts.
  void start(float&, float&) const {}

  // Writes the gradients of the head's numbers, from the LSE in base 2 and the delta of each row, both [B, H, Nq].
  template <class Call>
  void of_rows(const Call&, int64_t, const float*, const float*) const {}
};
