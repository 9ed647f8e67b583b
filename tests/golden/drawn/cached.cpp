...
// Here: 4 query heads on 2 key heads, head dim 128, float32.
...

constexpr int REGIONS = 1;  // of a KV group in the table of places

...

// ---- Slots of keys, for each class of heads.
void slots_of_keys_0(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
... -2
  const int base0 = base_of(places + 0), capacity0 = capacity_of(places + 0);
... -1
  for (int n = 0; n < count; ++n) {
    [[maybe_unused]] const int j = key[n];
    slot[n] = ((j < capacity0) ? base0 + j : -1);
  }
}

void slots_of_keys(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
  static const int class_of[] = {0, 0, 0, 0};
...

// ---- Slots of keys, for each class of groups.
void slots_to_keep_0(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
...

void slots_to_keep(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
  static const int class_of[] = {0, 0};
...
... -6
  // line 6: window(2b) & line 5: causal
  for (int n = 0, count = count0; n < count; ++n) {
    const int tile = full_from0 + n;
  ...
    const int tile = from0 + n;
  ...
    const int tile = at0 + n;
...

// Here: 4 query heads on 2 key heads, head dim 128, float32.
...

constexpr int HEADS = 4, KV_HEADS = 2, D = 128, DV = 128;
constexpr int QUERY_TILE = 1, KEY_TILE = 64;
constexpr int LANE_TILE = KEY_TILE;  // lies across vector lanes
constexpr int REGIONS = 1;  // of a KV group in the table of places

...

const Pack PACKS[] = {
    {0, 1, {0}},
    {0, 1, {1}},
    {1, 1, {2}},
    {1, 1, {3}},
};
constexpr int PACK_COUNT = sizeof PACKS / sizeof *PACKS;

...

  const int hi0 = maximum(minimum(nk, i0 + 1), 0);
  const int from0 = minimum(maximum(0, (i0 >> 6) - 1), (nk >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i0 + 64) >> 6)), 0) : minimum(maximum(0, (i0 >> 6) - 1), (nk >> 6))));
  ...
  const int to1 = ((0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i0 + 64) >> 6)), 0) : 0);
  ...
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return ((((i >> 6) * 64 - 64 < j + 1) & (j < i + 1)) | ((j < i + 1) & truth(listed_0))); };
  // line 6: window(2b) & line 5: causal
  for (int count = count0, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count1, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
  ...
  for (int count = count2, n = passed(w, count); n < count && !passes(w, count - n); ++n) {
...
