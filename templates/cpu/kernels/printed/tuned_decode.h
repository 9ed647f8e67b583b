#pragma once
constexpr int KEYS_A_TASK = 256, MOST_TASKS = 16, ROW_TASKS = 64;
