...
... -2
  const int lo0 = maximum(begin, j0 - base);
  const int hi0 = maximum(minimum(end, j1 + 4096 - base), 0);
  const int from0 = minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((end + 63) >> 6), ((j1 + 4096 - base + 63) >> 6)), 0) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))));
  const int from1 = ((j0 < minimum(j1, 9) + 1) ? minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6)) : 0);
  const int to1 = maximum(from1, ((j0 < minimum(j1, 9) + 1) ? ((lo0 < end) ? ((end + 63) >> 6) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))) : 0));
  ...
  const int hi1 = maximum(minimum(end, j0 + 4096 - base), 0);
  const int sure_hi0 = maximum(lo1, hi1);
  const int sure_lo0 = ((j1 < 10) ? lo1 : 0);
  const int sure_hi1 = ((j1 < 10) ? maximum(lo1, end) : 0);
  const int full_from0 = maximum(((begin + 63) >> 6), ((j1 - base + 63) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum((begin >> 6), ((j1 - base) >> 6)), maximum(minimum((end >> 6), ((j0 + 4096 - base) >> 6)), 0)));
  const int full_from1 = maximum(((((sure_lo0 < sure_hi0 + 1) ? lo1 : sure_lo0) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from1, maximum(maximum(maximum((begin >> 6), ((j1 - base) >> 6)), maximum(minimum((end >> 6), ((j0 + 4096 - base) >> 6)), 0)), (sure_hi1 >> 6)));
  ...
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return (((j < i + 1) & (i < j + 4096)) | ((j < i + 1) & (j < 10))); };
...
