#pragma once
#include "../gathers/no_forward.h"
