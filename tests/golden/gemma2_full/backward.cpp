...

constexpr float SOFTCAP = 50.0f;

...

// ---- Head classes: which query tiles the keys j0 .. j1 visit, in full or through a mask.
... -1 -6
  const int lo0 = maximum(begin, j0 - base);
... -1
  const int from0 = minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6));
  const int to0 = maximum(from0, ((lo0 < end) ? ((end + 63) >> 6) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(((begin + 63) >> 6), ((j1 - base + 63) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum((begin >> 6), ((j1 - base) >> 6)), (end >> 6)));
  ...
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return j < i + 1; };
  ... -1 -1 -8

...
