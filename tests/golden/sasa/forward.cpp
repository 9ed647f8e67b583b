... 731 lines, sha256 9ab79cdd8adc4fc5
...
  const int lo0 = maximum(maximum(0, i0 - 171), floor_div(i0, 56) * 56 - 168);
  const int hi0 = maximum(minimum(minimum(nk, i1 - 164), floor_div(i1, 56) * 56 - 112), 0);
  const int from0 = minimum(maximum(maximum(0, ((i0 - 171) >> 6)), ((floor_div(i0, 56) * 56 - 168) >> 6)), (nk >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 - 101) >> 6)), ((floor_div(i1, 56) * 56 - 49) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 - 171) >> 6)), ((floor_div(i0, 56) * 56 - 168) >> 6)), (nk >> 6))));
...
  const int to1 = maximum(from1, ((lo1 < hi1) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 - 45) >> 6)), ((floor_div(i1, 56) * 56 + 7) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 - 115) >> 6)), ((floor_div(i0, 56) * 56 - 112) >> 6)), (nk >> 6))));
...
  const int hi2 = maximum(minimum(minimum(nk, i1 - 52), floor_div(i1, 56) * 56), 0);
...
  const int to2 = maximum(from2, ((lo2 < hi2) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 + 11) >> 6)), ((floor_div(i1, 56) * 56 + 63) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 - 59) >> 6)), ((floor_div(i0, 56) * 56 - 56) >> 6)), (nk >> 6))));
  const int lo3 = maximum(maximum(0, i0 - 3), floor_div(i0, 56) * 56);
  const int hi3 = maximum(minimum(minimum(nk, i1 + 4), floor_div(i1, 56) * 56 + 56), 0);
  const int from3 = minimum(maximum(maximum(0, ((i0 - 3) >> 6)), (floor_div(i0, 56) * 56 >> 6)), (nk >> 6));
  const int to3 = maximum(from3, ((lo3 < hi3) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 + 67) >> 6)), ((floor_div(i1, 56) * 56 + 119) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 - 3) >> 6)), (floor_div(i0, 56) * 56 >> 6)), (nk >> 6))));
  const int lo4 = maximum(maximum(0, i0 + 53), floor_div(i0, 56) * 56 + 56);
...
  const int from4 = minimum(maximum(maximum(0, ((i0 + 53) >> 6)), ((floor_div(i0, 56) * 56 + 56) >> 6)), (nk >> 6));
  const int to4 = maximum(from4, ((lo4 < hi4) ? maximum(minimum(minimum(((nk + 63) >> 6), ((i1 + 123) >> 6)), ((floor_div(i1, 56) * 56 + 175) >> 6)), 0) : minimum(maximum(maximum(0, ((i0 + 53) >> 6)), ((floor_div(i0, 56) * 56 + 56) >> 6)), (nk >> 6))));
...
  const int full_from0 = maximum(maximum(0, ((i1 - 108) >> 6)), ((floor_div(i1, 56) * 56 - 105) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum(maximum(0, ((i1 - 171) >> 6)), ((floor_div(i1, 56) * 56 - 168) >> 6)), maximum(minimum(minimum((nk >> 6), ((i0 - 164) >> 6)), ((floor_div(i0, 56) * 56 - 112) >> 6)), 0)));
  const int run_lo0 = ((lo8 < sure_hi0 + 1) ? lo7 : lo8);
  const int run_hi0 = maximum(sure_hi0, sure_hi1);
  const int full_from1 = maximum(((((lo8 < sure_hi0 + 1) ? lo7 : lo8) + 63) >> 6), full_to0);
  const int full_to1 = maximum(full_from1, maximum(maximum(maximum(maximum(0, ((i1 - 171) >> 6)), ((floor_div(i1, 56) * 56 - 168) >> 6)), maximum(minimum(minimum((nk >> 6), ((i0 - 164) >> 6)), ((floor_div(i0, 56) * 56 - 112) >> 6)), 0)), maximum(maximum(maximum(0, ((i1 - 115) >> 6)), ((floor_div(i1, 56) * 56 - 112) >> 6)), maximum(minimum(minimum((nk >> 6), ((i0 - 108) >> 6)), ((floor_div(i0, 56) * 56 - 56) >> 6)), 0))));
  const int run_lo1 = ((lo9 < run_hi0 + 1) ? run_lo0 : lo9);
  const int run_hi1 = maximum(run_hi0, sure_hi2);
  const int full_from2 = maximum(((((lo9 < run_hi0 + 1) ? run_lo0 : lo9) + 63) >> 6), full_to1);
  const int full_to2 = maximum(full_from2, (run_hi1 >> 6));
...
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((((((((((i - 171 < j + 1) & (floor_div(i, 56) * 56 - 168 < j + 1)) & (j < i - 164)) & (j < floor_div(i, 56) * 56 - 112)) | ((((i - 115 < j + 1) & (floor_div(i, 56) * 56 - 112 < j + 1)) & (j < i - 108)) & (j < floor_div(i, 56) * 56 - 56))) | ((((i - 59 < j + 1) & (floor_div(i, 56) * 56 - 56 < j + 1)) & (j < i - 52)) & (j < floor_div(i, 56) * 56))) | ((((i - 3 < j + 1) & (floor_div(i, 56) * 56 < j + 1)) & (j < i + 4)) & (j < floor_div(i, 56) * 56 + 56))) | ((((i + 53 < j + 1) & (floor_div(i, 56) * 56 + 56 < j + 1)) & (j < i + 60)) & (j < floor_div(i, 56) * 56 + 112))) | ((((i + 109 < j + 1) & (floor_div(i, 56) * 56 + 112 < j + 1)) & (j < i + 116)) & (j < floor_div(i, 56) * 56 + 168))) | ((((i + 165 < j + 1) & (floor_div(i, 56) * 56 + 168 < j + 1)) & (j < i + 172)) & (j < floor_div(i, 56) * 56 + 224))); };
...
  const auto tile_48 = [&](int n) { return start5 + n; };
...
