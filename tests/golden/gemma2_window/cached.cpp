...

constexpr int REGIONS = 1;  // of a KV group in the table of places
constexpr float SOFTCAP = 50.0f;

...

// ---- Slots of keys, for each class of heads.
void slots_of_keys_0(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
... -2
  const int base0 = base_of(places + 0), capacity0 = capacity_of(places + 0);
... -1
  for (int n = 0; n < count; ++n) {
    [[maybe_unused]] const int j = key[n];
    slot[n] = base0 + j % capacity0;
  }
}

...

// ---- Slots of keys, for each class of groups.
void slots_to_keep_0(const int32_t* places, int member, int stop, const int* key, int count, int* slot) {
... -2
  const int base0 = base_of(places + 0), capacity0 = capacity_of(places + 0);
... -1
  for (int n = 0; n < count; ++n) {
    [[maybe_unused]] const int j = key[n];
    slot[n] = ((stop - capacity0 < j + 1) ? base0 + j % capacity0 : -1);
  }
}

...

constexpr int REGIONS = 1;  // of a KV group in the table of places
constexpr float SOFTCAP = 50.0f;

...

  const int hi0 = maximum(minimum(nk, i0 + 1), 0);
  const int from0 = minimum(maximum(0, ((i0 - 4095) >> 6)), (nk >> 6));
  const int to0 = maximum(from0, ((lo0 < hi0) ? maximum(minimum(((nk + 63) >> 6), ((i0 + 64) >> 6)), 0) : minimum(maximum(0, ((i0 - 4095) >> 6)), (nk >> 6))));
  const int stop0 = maximum(from0, to0);
  const int full_from0 = maximum(0, ((i0 - 4032) >> 6));
  const int full_to0 = maximum(full_from0, maximum(maximum(0, ((i0 - 4095) >> 6)), maximum(minimum((nk >> 6), ((i0 + 1) >> 6)), 0)));
  ...
  const auto live = [&]([[maybe_unused]] ivec j, [[maybe_unused]] int i) -> ivec { return ((i - 4095 < j + 1) & (j < i + 1)); };
...
