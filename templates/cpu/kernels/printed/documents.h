#pragma once
#include "../documents/none.h"
