#pragma once
#include "unchanged.h"

// A key adds to each of its scores the weight that the call gives it.
struct KeyBias : Unchanged {
  static constexpr bool KEYS = true;
  const float* weights;  // of the key at row 0
  int64_t apart, first, keys;  // from key to key; the row of position 0; how many rows there are

  template <class Call>
  KeyBias(const Call& call, int64_t b, int64_t head, int64_t k_row)
      : weights(call.key_bias + b * call.bias_stride[0] + head * call.bias_heads / HEADS * call.bias_stride[1]),
        apart(call.bias_stride[2]),
        first(k_row),
        keys(call.bias_keys) {}

  float of_key(int key) const {
    const int64_t row = key + first;
    return row >= 0 && row < keys ? weights[row * apart] * LOG2E : 0.0f;
  }
};
