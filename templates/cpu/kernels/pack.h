#pragma once
#include "printed/config.h"

// ---- Packs: query heads of one KV group that see the same keys.
struct Pack {
  int group, size, heads[HEADS / KV_HEADS];
};
