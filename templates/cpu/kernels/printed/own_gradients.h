#pragma once
#include "../gathers/no_backward.h"
