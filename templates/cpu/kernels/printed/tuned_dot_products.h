#pragma once
constexpr int AHEAD = 24;
