#pragma once
#include "floats.h"

typedef Floats Operands;  // elements are widened
