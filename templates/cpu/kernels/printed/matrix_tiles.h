#pragma once
#include "../matrix_tiles/none.h"
