#pragma once
#include "../call_keys.h"
