#pragma once
constexpr int AHEAD = 48;
