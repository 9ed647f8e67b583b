#pragma once
#include "../dtypes/float32.h"
#include "../dtypes/float32_rows.h"
