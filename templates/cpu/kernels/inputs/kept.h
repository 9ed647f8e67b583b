#pragma once
#include "lookup.h"

// ---- Lists of kept keys: of each sequence and group, the marked keys with their positions and marks.
// Lookup n has positions and, word by word, marks of all entries; lookup n + 1 has the lists: base, capacity, count.
struct KeptList {
  const int32_t* position;
  int64_t base, count;

  KeptList(const Inputs& inputs, int n, int head) : position((const int32_t*)inputs.lookups[n].data) {
    const int32_t* lists = (const int32_t*)inputs.lookups[n + 1].data;
    const int32_t* list = lists + (inputs.b * KV_HEADS + head / (HEADS / KV_HEADS)) * 3;
    base = list[0], count = list[2];
  }
};

// The keys at hand are marked by input ORDINAL.
template <int ORDINAL>
struct KeptMark {
  const Inputs& inputs;
  const int32_t* word;
  int shift;

  KeptMark(const Inputs& inputs, int n, int head) : inputs(inputs) {
    const int bit = KEPT_RANK[ORDINAL] * (HEADS / KV_HEADS) + head % (HEADS / KV_HEADS);
    word = (const int32_t*)inputs.lookups[n].data + (1 + bit / 32) * inputs.lookups[n].columns;
    shift = bit % 32;
  }
  ivec pair(int, ivec) const {
    ivec marks;
    std::memcpy(&marks, word + inputs.entry, sizeof marks);
    return ((marks >> shift) & 1) != 0;
  }
  ivec pair(ivec, int) const { return mask_of((word[inputs.entry] >> shift & 1) != 0); }
};
