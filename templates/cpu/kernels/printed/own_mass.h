#pragma once
#include "../gathers/no_mass.h"
