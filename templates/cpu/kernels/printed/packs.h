#pragma once
#include "../pack.h"

const Pack PACKS[] = {
    {0, 2, {0, 1}},
};
constexpr int PACK_COUNT = sizeof PACKS / sizeof *PACKS;
constexpr int KINDS[] = {0};  // packs of one kind see the same keys, and stand side by side
