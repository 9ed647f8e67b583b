...
// Here: 32 query heads on 8 key heads, head dim 128, float32.
...

constexpr int HEADS = 32, KV_HEADS = 8, D = 128;
constexpr int QUERY_TILE = 64, KEY_TILE = 64;
constexpr int LANE_TILE = QUERY_TILE;  // lies across vector lanes

...

// ---- Head classes: which key tiles the rows i0 .. i1 visit, in full or through a mask.
// line 8: window(16b) & line 6: causal
// line 8: stride(8b, phase=7) & line 6: causal
void visit_class_0(Work& w, [[maybe_unused]] const sparsec_list* lists, [[maybe_unused]] int head) {
  [[maybe_unused]] const int i0 = w.i0, i1 = w.i1, nk = w.n_k, begin = w.begin, end = w.end;
  static const int c0_of_head[HEADS] = {7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0};
  ...
  const int first_tile0 = (c0 & 7);
  const int count3 = ((until1 + 8 - first_tile0 + 7) >> 3) - 1;
  const auto live = [&]([[maybe_unused]] ivec i, [[maybe_unused]] int j) -> ivec { return ((((i >> 6) * 64 - 960 < j + 1) & (j < i + 1)) | ((j < i + 1) & truth((((j >> 6) - c0) & 7) < 1))); };
  // line 8: window(16b) & line 6: causal
  ...
  // line 8: stride(8b, phase=7) & line 6: causal
  for (int n = 0, count = count3; n < count; ++n) {
    const int tile = (n + 1) * 8 - 8 + first_tile0;
    attend_full(w, tile);
  }
  // line 8: window(16b) & line 6: causal
  ...
  // line 8: window(16b) & line 6: causal
...

void visit(Work& w, const sparsec_list* lists, int head) {
  static const int class_of_head[HEADS] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
...
