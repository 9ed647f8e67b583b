...

  const int base1 = base_of(places + 2), capacity1 = capacity_of(places + 2);
  for (int n = 0; n < count; ++n) {
    [[maybe_unused]] const int j = key[n];
    slot[n] = ((j < 10) ? ((j < capacity0) ? base0 + j : -1) : base1 + j % capacity1);
  }
}

...

  const int base1 = base_of(places + 2), capacity1 = capacity_of(places + 2);
  for (int n = 0; n < count; ++n) {
    [[maybe_unused]] const int j = key[n];
    slot[n] = ((j < 10) ? ((j < capacity0) ? base0 + j : -1) : ((stop - capacity1 < j + 1) ? base1 + j % capacity1 : -1));
  }
}

...
... -12
  // line 4: sink(10) & line 3: causal
  for (int n = 0, count = full_to0; n < count; ++n) {
    const int tile = n;
  ...
    const int tile = full_from0 + n;
  ...
    const int tile = full_to0 + n;
  ...
    const int tile = full_to1 + n;
  ...
    const int tile = at0 + n;
  ...
    const int tile = at1 + n;
...

  const int hi0 = maximum(minimum(minimum(nk, 10), i0 + 1), 0);
  const int to0 = ((0 < hi0) ? maximum(minimum(minimum(((nk + 63) >> 6), 1), ((i0 + 64) >> 6)), 0) : 0);
  const int lo0 = maximum(0, i0 - 4095);
  const int hi1 = maximum(minimum(nk, i0 + 1), 0);
  const int from0 = minimum(maximum(0, ((i0 - 4095) >> 6)), (nk >> 6));
  const int to1 = maximum(from0, ((lo0 < hi1) ? maximum(minimum(((nk + 63) >> 6), ((i0 + 64) >> 6)), 0) : minimum(maximum(0, ((i0 - 4095) >> 6)), (nk >> 6))));
  const int start0 = maximum(from0, to0);
  const int stop0 = maximum(start0, to1);
... -2
  const int full_to0 = maximum(minimum(0, ((i0 + 1) >> 6)), 0);
  const int full_from0 = maximum(((((lo0 < hi0 + 1) ? 0 : lo0) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from0, maximum(maximum(minimum(0, ((i0 + 1) >> 6)), 0), maximum(maximum(0, ((i0 - 4095) >> 6)), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0))));
  ...
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return (((i - 4095 < j + 1) & (j < i + 1)) | ((j < 10) & (j < i + 1))); };
  // line 4: sink(10) & line 3: causal
  for (int count = full_to0, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count0, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count1, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count2, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count3, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count4, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
...
