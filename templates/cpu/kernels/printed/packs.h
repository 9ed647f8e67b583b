#pragma once
#include "../pack.h"

const Pack PACKS[] = {
    {0, 2, {0, 1}},
};
constexpr int PACK_COUNT = sizeof PACKS / sizeof *PACKS;
