#pragma once
#include <cstdint>

// Rows list no keys themselves.
constexpr int TOGETHER = 1;

struct Gathered {};

template <class Work, class Call>
void gather_rows(Work&, const Call&, int64_t, int64_t, int64_t, int64_t) {}

template <class Work>
void resume(Work&, int64_t) {}
