#pragma once
#include "../call_rows.h"
