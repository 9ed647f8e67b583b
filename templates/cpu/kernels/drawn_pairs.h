#pragma once
#include "draws.h"
#include "vectors.h"

// The mask of the blocks that were drawn.
inline ivec drawn(const int32_t* draws, int width, ivec block) {
  ivec found;
  for (int n = 0; n < LANES; ++n) found[n] = truth(drawn(draws, width, block[n]));
  return found;
}
