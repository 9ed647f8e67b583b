#pragma once
#include "../operands/widened.h"
