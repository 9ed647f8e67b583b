#pragma once
#include "../inputs/counted.h"
#include "../inputs/lists.h"
#include "../inputs/cells.h"
#include "../inputs/labels.h"
#include "../inputs/tree.h"
#include "../inputs/lengths.h"
#include "../inputs/kept.h"
