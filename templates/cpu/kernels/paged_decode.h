#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "paged_shared.h"

// ---- Teams: packs that see the same keys, which one task takes together.
struct Team {
  int first, count;  // of PACKS
};

// At most MOST_ROWS packs each, or one if not `together`; returns how many teams they are.
inline int64_t form_teams(bool together, Team* teams) {
  int64_t count = 0;
  for (int n = 0; n < PACK_COUNT; ++n) {
    const bool joins = together && n > 0 && KINDS[n] == KINDS[n - 1] && teams[count - 1].count < MOST_ROWS;
    if (joins) ++teams[count - 1].count;
    else teams[count++] = {n, 1};
  }
  return count;
}

// Share `share` of a row of q, for a team; leaves what each head has at sums[head * apart].
void run_team(Row* w, const sparsec_paged_call& call, const FewRows& few, const FewRow& row, const Team& team,
              int share, int64_t apart, Sum* sums) {
  set_shared(*w, few, row, team.first, false);
  for (int n = 1; n < team.count; ++n) start_row(w[n], call, row, team.first + n);
  const auto start = [&] {
    for (int n = 0; n < team.count; ++n) load_query(w[n], call, row.request, row.row, 0);
    w->beside = team.count - 1;
  };
  const auto end = [&](bool idle) {
    for (int n = 0; n < team.count; ++n) keep_sums(w[n], idle, apart, sums);
  };
  attend_share(*w, call, row.request, PACKS[team.first], row.row, share, start, end);
}

// ---- Tasks: shares of every row of every team, of the requests that have few queries, and of the tiles that sets of
// rows share; after them the merging.
int attend_rows(const sparsec_paged_call& call) {
  if (!sound(call)) return 2;
  const FewRows few(call);
  if (!few.rows) return 1;
  if (few.count == 0) return 0;
  // Of each row and head come first what the shares of its set's tiles have, then what those of its own have.
  const int64_t shared = few.tiles > 0 ? shares_of(few.tiles * KEY_TILE, MOST_TASKS) : 0, apart = shared + few.most;
  const int64_t counts = shared > 0 ? few.sets * PACK_COUNT : 0, shares_in_all = few.count * apart;
  // Few tasks are as many as can be. Else teams of one share follow each other, for their keys lie side by side.
  const bool many = shares_in_all >= 8 * call.threads;
  Team teams[PACK_COUNT];
  const int64_t team_count = form_teams(many, teams), tasks = shares_in_all * team_count;
  const int at_once = many ? int(team_count) : 1;
  const int64_t room = few.count * HEADS * apart * sizeof(Sum);  // [count, heads, apart]
  Sum* sums = static_cast<Sum*>(std::aligned_alloc(alignof(Sum), room));
  if (!sums) return 1;
  int failed = 0;
#pragma omp parallel num_threads(int(std::min<int64_t>(call.threads, tasks))) reduction(| : failed)
  {
    const int64_t rows = maximum(MOST_ROWS, shared > 0 ? ROWS_TOGETHER : 1);
    Work* w = static_cast<Work*>(std::aligned_alloc(64, (rows * sizeof(Work) + 63) / 64 * 64));
    failed = w == nullptr;
    for (int64_t n = 0; n < rows * PANEL && w; ++n) w[n / PANEL].lane[n % PANEL / LANES][n % LANES] = int(n % PANEL);
#pragma omp for schedule(dynamic, 1)
    for (int64_t n = 0; n < counts; ++n)
      if (w) count_tiles(*w, call, few, int(n / PACK_COUNT), n % PACK_COUNT);
#pragma omp for schedule(dynamic, at_once)
    for (int64_t n = 0; n < tasks; ++n) {
      const int64_t share = n / team_count % apart, at = n / team_count / apart;
      const Team& team = teams[n % team_count];
      Sum* first = sums + at * HEADS * apart + share;
      for (int pack = team.first; w && share < shared && pack < team.first + team.count; ++pack)
        attend_shared(w, call, few, at, pack, int(share), apart, first);
      if (w && share >= shared) run_team(w, call, few, few.rows[at], team, int(share - shared), apart, first);
    }
    std::free(w);
#pragma omp for
    for (int64_t n = 0; n < few.count * HEADS; ++n) {
      const FewRow& of = few.rows[n / HEADS];
      const int64_t h = n % HEADS, to = of.row * HEADS + h, from = few.set_of[of.set].tiles > 0 ? 0 : shared;
      const int shares = int(shared - from) + tasks_of(call, of.request, h / SHARE);
      merge(call, h, sums + n * apart + from, shares, (element*)call.out + to * DV, call.lse + to);
    }
  }
  std::free(sums);
  return failed;
}
