#pragma once
#include <algorithm>

#include "printed/calls.h"

// ---- Draws: the key blocks that each query block has drawn.
// What query block `block` has drawn, for one row of a list; a tile that is no query's may ask, and gets another's.
inline const int32_t* draws(const sparsec_list& list, int row, int block, int width) {
  const int64_t at = std::clamp<int64_t>(block - list.first, 0, list.blocks - 1);
  return list.entries + (row * list.blocks + at) * width;
}

inline bool drawn(const int32_t* draws, int width, int block) {
  return std::find(draws, draws + width, block) != draws + width;
}
