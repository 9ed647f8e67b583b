#pragma once
#include <cstdint>

constexpr int HEADS = 2, KV_HEADS = 1, D = 64, DV = 64;
constexpr int QUERY_TILE = 64, KEY_TILE = 64;
constexpr int LANE_TILE = QUERY_TILE;  // lies across vector lanes
constexpr int REGIONS = 1;  // of a KV group in the table of places
constexpr int LOOKUPS = 7;  // of what the pattern asks inputs
constexpr int KEPT_WORDS = 1, KEPT_INPUTS = 1;  // of an entry's marks
constexpr int KEPT_RANK[] = {0};  // of each input among those
constexpr uint32_t KEPT_WANTED[KV_HEADS][KEPT_WORDS] = {{1u}};  // a listed key has one of these marks
constexpr float SOFTCAP = 30.0f;
constexpr float SLOPES[HEADS] = {0.09016844005556021f, 0.005635527503472513f};
