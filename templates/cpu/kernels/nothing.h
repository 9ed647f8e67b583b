#pragma once
#include "elements.h"

const operand NOTHING[row_of(WIDEST)] = {};  // in place of a key that is not held: it is dead, and is not read
