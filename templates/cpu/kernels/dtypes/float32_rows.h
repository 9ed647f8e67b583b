#pragma once
#include "../vectors.h"

constexpr bool WIDE_IN_ORDER = true;

// Widens a vector in memory, here of floats already.
inline void wide(const float* from, vec (&to)[1]) { to[0] = load(from); }
