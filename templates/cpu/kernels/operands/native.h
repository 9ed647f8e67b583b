#pragma once
#include "bfloat16.h"

typedef Bfloat16Operands Operands;  // elements are as they are where the processor multiplies them
