...

constexpr int REGIONS = 1;  // of a KV group in the table of places
constexpr float SOFTCAP = 50.0f;

...

constexpr int REGIONS = 1;  // of a KV group in the table of places
constexpr float SOFTCAP = 50.0f;

...

  const int hi0 = maximum(minimum(nk, i0 + 1), 0);
  const int to0 = ((0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i0 + 64) >> 6)), 0) : 0);
  const int full_to0 = maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0);
  const int count0 = maximum(to0 - full_to0, 0);
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return j < i + 1; };
  // line 13: full & line 12: causal
  for (int count = full_to0, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count0, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
...
