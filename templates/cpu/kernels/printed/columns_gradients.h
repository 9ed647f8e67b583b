#pragma once
#include "../columns/no_backward.h"
