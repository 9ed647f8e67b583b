#pragma once
#include "../dtypes/float32.h"
#include "../dtypes/float32_rows.h"

typedef Float32 Element;  // of q and the output
typedef Float32 Stored;  // of k and v
