#pragma once
#include "../row_operands/widened.h"
