#pragma once
#include "../keys_at_hand.h"

// ---- Products of the keys of one tile with panels: by the micro-kernels.
typedef PanelProducts Products;
