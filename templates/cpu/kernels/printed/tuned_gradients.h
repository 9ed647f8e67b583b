#pragma once
constexpr int CHUNK = 64;
