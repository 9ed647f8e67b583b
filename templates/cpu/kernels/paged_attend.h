#pragma once
#include <algorithm>
#include <cstdlib>

#include "row.h"

// ---- Rows of several packs that see the same keys attend to those that wait, over pages.
// Memory that is read in short pieces, each far from the last, comes at half the rate of memory that is read on and on.
// So where the heads of a key lie side by side, all rows take some keys before the next ones, and fetch in the order in
// which these lie. Where the keys of a head lie together, one row takes the keys that wait after another.
constexpr int GROUP = 16;  // keys; a row takes one group or some of them, before those of the next row
constexpr int GROUPS_AHEAD = AHEAD < GROUP ? 1 : AHEAD / GROUP;  // of rows of keys that are fetched beforehand
constexpr int FEWEST_BYTES = 512;  // of a key's rows, for which to take them together
static_assert(GROUP % LANES == 0 && SPARE >= GROUP, "whole groups of keys may be fetched");
static_assert(Stored::BESIDE == 0, "pages hold numbers alone");
constexpr bool MAY_SHARE = !Inputs::ASKED && !Modifiers::KEYS;  // keys are seen by their positions alone
// As many as 2 KiB of keys are rows of: what a block of keys and of values takes stays in the second level's cache.
constexpr int MOST_ROWS = MAY_SHARE ? std::max(1, std::min(16, 2048 / int(WIDEST * sizeof(stored)))) : 1;

// The keys, or the values, of rows: those of row r lie apart[r] after those of the first, `first`.
struct TeamRows {
  const stored* const* first;
  const int64_t* apart;
  int count;  // SPARE more are addresses too
};

// The rows of groups of keys in the order in which they lie, all rows of a key before the next one, in parts of GROUP
// rows; a group has as many parts as there are rows.
struct Coming {
  static constexpr int PARTS_AT_ONCE = 32;
  static_assert(PARTS_AT_ONCE > MOST_ROWS + GROUPS_AHEAD + 8, "more than are waited for");
  const stored* row[(PARTS_AT_ONCE + 2) * GROUP];

  const stored** part(int n) { return row + (n % PARTS_AT_ONCE + 1) * GROUP; }

  // Part n, which is number `which` of the group of keys from number `from` on.
  void list(int n, const TeamRows& of, int from, int which, int rows) {
    const int begin = which * GROUP / rows, end = (which * GROUP + GROUP + rows - 1) / rows;
    const stored** to = part(n) - (which * GROUP - begin * rows);  // what the part before has of a key, once more
    for (int k = begin; k < end; ++k, to += rows) {
      const stored* key = of.first[from + k];
      for (int r = 0; r < MOST_ROWS; ++r) to[r] = key + of.apart[r];  // a fixed number, for vectors
    }
  }
};

// What comes from memory while row n is at hand: the rows of some parts, and those of others once more.
template <int N>
struct ComingRows {
  const stored *const *late, *const *soon;
  int first;  // key that is at hand
  __attribute__((always_inline)) void operator()(int n) const { fetch<N>(late[n - first]), fetch<N>(soon[n - first]); }
  __attribute__((always_inline)) void operator()(int n, const stored*, bool) const { (*this)(n); }
  bool far(int, int) const { return true; }
};

// Calls `attend_to(row, first, stop, far, near)` for some groups of keys of each row, then for as many after them, up
// to own.count keys; meanwhile the rows `far`, and once more `near`, are to be fetched. What comes after the last ones
// are the first ones of `after`.
template <class Of>
inline void by_groups(Row* w, int rows, const TeamRows& own, const TeamRows& after, const Of& attend_to) {
  const int count = own.count;
  Coming coming;
  const int bytes = rows * GROUP * STORED_ROW<D> * int(sizeof(stored));
  const int groups = 4 * bytes <= BYTES_AHEAD ? 4 : 2 * bytes <= BYTES_AHEAD ? 2 : 1;  // of a row at a time
  const int keys = groups * GROUP, steps = (count + keys - 1) / keys * rows;
  const int near = rows * groups, far = near + (GROUPS_AHEAD + groups - 1) / groups * groups;  // in parts
  const int parts = (count + GROUP - 1) / GROUP * rows;
  for (int step = 0, listed = near; step < steps; ++step) {
    for (; listed < step * groups + far + groups; ++listed) {
      const int n = listed < parts ? listed : listed - parts;
      const TeamRows& of = listed < parts ? own : after;
      coming.list(listed, of, minimum(n / rows * GROUP, of.count), n % rows, rows);
    }
    const int first = step / rows * keys;
    attend_to(w[step % rows], first, minimum(first + keys, count), coming.part(step * groups + far),
              coming.part(step * groups + near + GROUPS_AHEAD / 2 / groups * groups));
  }
}

// As `attend_alone` of each row; `held` are the keys to fetch at the end.
inline void attend_together(Row* w, int rows, const TeamRows& keys, const TeamRows& values, const TeamRows& held) {
  by_groups(w, rows, keys, values, [](Row& row, int first, int stop, auto far, auto near) {
    by_heads(row.pack, [&](auto heads, int r) {
      score<RowOperands, heads.value, D>(row.q + r, row.key, ComingRows<D>{far, near, first}, first, stop, row.s + r);
    });
  });
  for (int r = 0; r < rows; ++r)
    for (int h = 0; h < w[r].pack; ++h) weigh(w[r], w->at, keys.count, h);
  by_groups(w, rows, values, held, [](Row& row, int first, int stop, auto far, auto near) {
    by_heads(row.pack, [&](auto heads, int r) {
      RowOperands::add_values<heads.value, DV>(row.s + r, row.value, ComingRows<DV>{far, near, first}, first, stop,
                                               row.o + r);
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
    for (int n = 0; n < first.waiting + SPARE; ++n)
      w[r].key[n] = first.key[n] + keys[r], w[r].value[n] = first.value[n] + values[r];
  }
  const bool side_by_side =
      rows * STORED_ROW<D> * int(sizeof(stored)) >= FEWEST_BYTES && std::abs(keys[1]) < std::abs(first.source.k.row);
  if (rows > 1 && side_by_side) {
    attend_together(w, rows, {first.key, keys, count}, {first.value, values, count},
                    {first.key + count, keys, first.waiting - count});
  } else {
    for (int r = 0; r < rows; ++r) attend_alone(w[r], first.at, count);
  }
  wait_on(first, count);
}

inline void attend(Row& w) { attend(w, w.waiting); }

// The last ones wait on: they are fetched while the others are at hand, and the next ones while they are.
inline void make_room(Row& w) { attend(w, w.waiting - HELD_BACK); }
