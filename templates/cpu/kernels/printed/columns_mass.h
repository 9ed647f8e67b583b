#pragma once
#include "../columns/no_mass.h"
