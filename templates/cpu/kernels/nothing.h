#pragma once
#include "elements.h"

const float NOTHING[WIDEST] = {};  // in place of a key that is not held: it is dead, and is not read
