#pragma once
#include <cstdint>

// Rows list no keys themselves.
constexpr int OWN_SHARES = 0;

struct OwnGradients {
  static constexpr int64_t tasks = 0;

  template <class Call>
  explicit OwnGradients(const Call&) {}
  bool ready() const { return true; }
  template <class Call>
  int run(const Call&, int64_t, const float*, const float*, float*) const {
    return 0;
  }
  template <class Keys, class Values>
  void add(int64_t, int64_t, int, Keys, Values) const {}
  void add_bias(int64_t, int64_t, int, int64_t, float*) const {}
};
