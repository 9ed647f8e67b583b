#pragma once
#include <cstdint>

// Nothing is asked of inputs.
struct Inputs {
  template <class Call>
  Inputs(const Call&, int64_t, int64_t, int64_t, int) {}
};
