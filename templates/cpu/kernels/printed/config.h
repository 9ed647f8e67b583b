#pragma once

constexpr int HEADS = 2, KV_HEADS = 1, D = 64, DV = 64;
constexpr int QUERY_TILE = 64, KEY_TILE = 64;
constexpr int LANE_TILE = QUERY_TILE;  // lies across vector lanes
constexpr int REGIONS = 1;  // of a KV group in the table of places
constexpr int LOOKUPS = 6;  // of what the pattern asks inputs
constexpr float SOFTCAP = 30.0f;
constexpr float SLOPES[HEADS] = {0.09016844005556021f, 0.005635527503472513f};
