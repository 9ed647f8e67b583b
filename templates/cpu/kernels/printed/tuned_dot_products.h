#pragma once
constexpr int BYTES_AHEAD = 6144;
