...

... -2
  const int lo0 = maximum(begin, j0 - base);
  const int from0 = ((j0 < minimum(j1, 3) + 1) ? minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6)) : 0);
  const int to0 = maximum(from0, ((j0 < minimum(j1, 3) + 1) ? ((lo0 < end) ? ((end + 63) >> 6) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))) : 0));
  const int hi0 = maximum(minimum(end, j1 + 1024 - base), 0);
  const int from1 = minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6));
  const int to1 = maximum(from1, ((lo0 < hi0) ? maximum(minimum(((end + 63) >> 6), ((j1 + 1024 - base + 63) >> 6)), 0) : minimum(maximum((begin >> 6), ((j0 - base) >> 6)), (end >> 6))));
  ...
  const int sure_lo0 = ((j1 < 4) ? lo1 : 0);
  const int sure_hi0 = ((j1 < 4) ? maximum(lo1, end) : 0);
  const int full_from0 = ((((j1 < 4) ? lo1 : 0) + 63) >> 6);
  const int full_to0 = maximum(full_from0, (sure_hi0 >> 6));
  const int full_from1 = maximum(((((lo1 < sure_hi0 + 1) ? sure_lo0 : lo1) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from1, maximum((sure_hi0 >> 6), maximum(maximum((begin >> 6), ((j1 - base) >> 6)), maximum(minimum((end >> 6), ((j0 + 1024 - base) >> 6)), 0))));
  ...
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return (((j < i + 1) & (j < 4)) | ((j < i + 1) & (i < j + 1024))); };
...
