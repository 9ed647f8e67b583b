#pragma once
#include <cstdint>

// Rows list no keys themselves.
struct OwnMass {
  static constexpr int64_t tasks = 0;

  template <class Call>
  explicit OwnMass(const Call&) {}
  bool ready() const { return true; }
  template <class Call>
  int run(const Call&, int64_t) const {
    return 0;
  }
  float at(int64_t, int64_t, int64_t) const { return 0.0f; }
};
