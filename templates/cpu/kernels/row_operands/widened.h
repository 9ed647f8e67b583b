#pragma once
#include "floats.h"

typedef FloatRows RowOperands;
