#pragma once
constexpr int BYTES_AHEAD = 8192;
