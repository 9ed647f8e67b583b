#pragma once
#include <algorithm>
#include <cstdlib>

#include "row.h"

// ---- Rows of several packs that see the same keys attend to those that wait, over pages.
// Where the heads of a key lie side by side, all rows take a few keys before the next ones: memory that is read in
// short pieces, each far from the last, comes at half the rate of memory that is read on and on. Where the keys of a
// head lie together, one row takes the keys that wait after another; the next row's were fetched with those before.
constexpr int BLOCK = 64, PLACES = 4;  // keys that are fetched while so many before them are at hand, in so many places
constexpr int RUN = BLOCK / PLACES;  // keys of a place, which lie in one page where pages are no smaller
constexpr int GROUP = 16;  // keys of a row, before those of the next row
static_assert(BLOCK % GROUP == 0 && GROUP % LANES == 0, "a block is whole groups of keys");
static_assert(Stored::BESIDE == 0, "pages hold numbers alone");
constexpr bool MAY_SHARE = !Inputs::ASKED && !Modifiers::KEYS;  // keys are seen by their positions alone
// As many as 2 KiB of keys are rows of: what a block of keys and of values takes stays in the second level's cache.
constexpr int MOST_ROWS = MAY_SHARE ? std::max(1, std::min(16, 2048 / int(WIDEST * sizeof(stored)))) : 1;

// The keys, or the values, of `rows` rows: those of row r lie apart[r] after those of the first, `first`.
struct TeamRows {
  const stored* const* first;
  const int64_t* apart;
  int count;
};

// What is fetched while a block is at hand: the keys from number `from` on, all rows of each, from one place after
// another; the processor follows several places at once, so that one which ends and another which begins cost less.
struct Next {
  const stored* row[MOST_ROWS * (BLOCK + 1)];

  void list(const TeamRows& of, int from, int rows) {
    const stored** to = row;
    for (int n = from; n < from + RUN; ++n)
      for (int p = 0; p < PLACES; ++p, to += rows) {
        const stored* key = of.first[minimum(n + p * RUN, of.count - 1)];
        for (int r = 0; r < MOST_ROWS; ++r) to[r] = key + of.apart[r];  // a fixed number, for vectors
      }
  }
};

// Calls `of(row, first, stop, next)` for GROUP keys of each row, then for as many after them, up to own.count keys;
// meanwhile the rows `next` are to be fetched. What comes after the last block is the first one of `after`.
template <class Of>
inline void by_blocks(Row* w, int rows, const TeamRows& own, const TeamRows& after, const Of& of) {
  Next next;
  for (int block = 0; block < own.count; block += BLOCK) {
    if (block + BLOCK < own.count) next.list(own, block + BLOCK, rows);
    else next.list(after, 0, rows);
    const stored* const* each = next.row;
    for (int n = block; n < minimum(block + BLOCK, own.count); n += GROUP)
      for (int r = 0; r < rows; ++r, each += GROUP) of(w[r], n, minimum(n + GROUP, own.count), each);
  }
}

// As `attend_alone` of each row; `held` are the keys to fetch at the end.
inline void attend_together(Row* w, int rows, const TeamRows& keys, const TeamRows& values, const TeamRows& held) {
  by_blocks(w, rows, keys, values, [](Row& row, int first, int stop, const stored* const* next) {
    by_heads(row.pack, [&](auto heads, int r) {
      score<RowOperands, heads.value, D>(row.q + r, row.key, ListedRows<D>{next}, first, stop, row.s + r);
    });
  });
  for (int r = 0; r < rows; ++r)
    for (int h = 0; h < w[r].pack; ++h) weigh(w[r], w->at, keys.count, h);
  by_blocks(w, rows, values, held, [](Row& row, int first, int stop, const stored* const* next) {
    by_heads(row.pack, [&](auto heads, int r) {
      RowOperands::add_values<heads.value, DV>(row.s + r, row.value, next, first, stop, row.o + r);
    });
  });
}

// To the first `count` keys that wait for the first row, and those beside it.
inline void attend(Row& first, int count) {
  if (count <= 0) return;
  point_waiting(first);
  Row* const w = &first;
  const int rows = first.beside + 1;
  int64_t keys[MOST_ROWS + 1] = {}, values[MOST_ROWS + 1] = {};  // from rows of the first row's head to those of others
  for (int r = 1; r < rows; ++r) {
    keys[r] = w[r].source.k.data - first.source.k.data, values[r] = w[r].source.v.data - first.source.v.data;
    for (int n = 0; n < first.waiting + AHEAD; ++n)
      w[r].key[n] = first.key[n] + keys[r], w[r].value[n] = first.value[n] + values[r];
  }
  if (rows > 1 && std::abs(keys[1]) < std::abs(first.source.k.row)) {
    const int waiting = maximum(first.waiting - count, 1);  // the last key again, if none is held back
    attend_together(w, rows, {first.key, keys, count}, {first.value, values, count},
                    {first.key + (first.waiting - waiting), keys, waiting});
  } else {
    for (int r = 0; r < rows; ++r) attend_alone(w[r], first.at, count);
  }
  wait_on(first, count);
}

inline void attend(Row& w) { attend(w, w.waiting); }

// The last ones wait on: they are fetched while the others are at hand, and the next ones while they are.
inline void make_room(Row& w) { attend(w, w.waiting - HELD_BACK); }
