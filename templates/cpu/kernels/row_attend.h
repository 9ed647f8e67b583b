#pragma once
#include "row.h"

// ---- A row attends to the keys that wait: to the first `count` of them, or to all.
inline void attend(Row& w, int count) {
  if (count <= 0) return;
  point_waiting(w);
  attend_alone(w, w.at, count);
  wait_on(w, count);
}

inline void attend(Row& w) { attend(w, w.waiting); }

// The last ones wait on: they are fetched while the others are at hand, and the next ones while they are.
inline void make_room(Row& w) { attend(w, w.waiting - HELD_BACK); }
