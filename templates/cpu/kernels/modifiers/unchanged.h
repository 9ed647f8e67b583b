#pragma once
#include "../vectors.h"

// ---- Score modifiers: what the pattern does to scores, in base 2 and many at a time.

// What a modifier may do, and does if it says nothing else: no change at all.
struct Unchanged {
  static constexpr float UNIT = LOG2E;  // a score times this is what it takes; it gives scores times LOG2E
  static constexpr bool POSITIONS = false;  // whether `forward` reads positions
  static constexpr bool KEYS = false;  // whether keys add numbers of their own, as `of_key` has them
  static constexpr bool ROW_GRADIENTS = false;  // whether the head has numbers that `of_rows` differentiates

  template <int N>
  struct Kept {};  // what `backward` needs of N vectors

  Unchanged() = default;
  template <class Call>
  Unchanged(const Call&, int64_t, int64_t, int64_t) {}  // of a sequence and a query head; position 0 is this row of k

  // Changes the scores x of V vectors of queries (or keys) with each of N / V keys (or queries): those of x[n] are at
  // positions lane[n % V] and other[n / V].
  template <int N, int V>
  void forward(vec (&)[N], Kept<N>&, const ivec (&)[V], const int*) const {}

  // Turns gradients of the scores that `forward` gave into those of the scores that it took.
  template <int N>
  void backward(vec (&)[N], const Kept<N>&) const {}

  // What the key at a position adds to the scores that `forward` gave; -inf: no query sees the key.
  float of_key(int) const { return 0.0f; }

  // Changes the maximum and the sum with which the soft-max of each row starts.
  void start(float&, float&) const {}

  // Writes the gradients of the head's numbers, from the LSE in base 2 and the delta of each row, both [B, H, Nq].
  template <class Call>
  void of_rows(const Call&, int64_t, const float*, const float*) const {}
};

// What each of these keys adds.
template <class Modifiers>
inline vec of_keys(const Modifiers& modifiers, ivec key) {
  vec found = {};
  if constexpr (Modifiers::KEYS)
    for (int n = 0; n < LANES; ++n) found[n] = modifiers.of_key(key[n]);
  return found;
}

// The score x of a key that adds `more`; what a key that is not seen holds may be NaN.
inline vec added(vec x, vec more) { return more == splat(-INF) ? more : x + more; }

// Whether a key is seen, as far as it is for the modifiers to say; and the mask of several.
template <class Modifiers>
inline bool keeps(const Modifiers& modifiers, int key) {
  return !Modifiers::KEYS || modifiers.of_key(key) != -INF;
}
template <class Modifiers>
inline ivec keeps(const Modifiers& modifiers, ivec key) {
  if constexpr (Modifiers::KEYS) return of_keys(modifiers, key) != splat(-INF);
  else return splat(-1);
}

// Whether all of the keys first .. stop - 1 are.
template <class Modifiers>
inline bool keeps_all(const Modifiers& modifiers, int first, int stop) {
  if constexpr (Modifiers::KEYS)
    for (int key = first; key < stop; ++key)
      if (!keeps(modifiers, key)) return false;
  return true;
}
