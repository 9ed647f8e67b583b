#pragma once
constexpr int KEYS_A_TASK = 512, MOST_TASKS = 16;
