#pragma once
constexpr int BYTES_AHEAD = 8192, BYTES_NEAR = 1024, BYTES_A_BLOCK = 4096, AT_ONCE = 256;
