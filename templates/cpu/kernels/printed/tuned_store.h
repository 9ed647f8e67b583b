#pragma once
constexpr int ELEMENTS_A_THREAD = 32768;
