#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <utility>

#include "key_tiles.h"

// ---- Shares: the key tiles of one key head in parts, so that all threads of a machine have work. Each share has sums
// of dq of its own, which are added up in the order of the shares, whichever is done first.
// Wanted of a call, and at least of a share; fixed, for they decide the order of sums.
constexpr int64_t TASKS = 256, TILES = 8;
constexpr int64_t SUMS_BYTES = int64_t(1) << 30;  // of all rooms but one a key head

struct Share {  // key tiles first .. stop - 1 of a key head of a sequence
  int64_t group, number, first, stop;
};

class Shares {
  struct Room {
    Sums sums;
    Room* next;
  };
  struct Group {
    Room total;
    int64_t added;  // shares
    bool adding;  // some thread does
  };
  const sparsec_backward_call& call;
  const int64_t tiles, chunks;  // of all keys; of the query heads of a key head
  Room* unused = nullptr;
  int64_t made = 0;  // rooms
  bool given_up = false;  // some share will not be finished
  std::unique_ptr<Group[]> group;
  std::unique_ptr<Room*[]> done;  // [groups, count]

  static constexpr int64_t HEAD = (sizeof(Room) + 63) / 64 * 64;
  int64_t numbers() const { return HEADS / KV_HEADS * call.n_q * WIDE; }

  Room* new_room() const {
    const int64_t touched = HEAD + numbers() * int64_t(sizeof(float));
    char* const at = static_cast<char*>(std::aligned_alloc(64, touched + (chunks + 63) / 64 * 64));
    if (at == nullptr) return nullptr;
    std::memset(at + touched, 0, chunks);
    return new (at) Room{{(float*)(at + HEAD), (uint8_t*)(at + touched)}, nullptr};
  }

  // Adds sums and leaves nothing touched in them.
  void add(const Sums& from, const Sums& to) const {
    const int64_t of_head = chunks_of(call);
    for (int64_t n = 0; n < chunks; ++n) {
      if (!from.touched[n]) continue;
      const int64_t first = n % of_head * CHUNK, at = (n / of_head * call.n_q + first) * WIDE;
      const int64_t count = std::min<int64_t>(CHUNK, call.n_q - first) * WIDE;
      if (!to.touched[n]) std::memcpy(to.dq + at, from.dq + at, count * sizeof(float));
      else
        for (int64_t d = at; d < at + count; ++d) to.dq[d] += from.dq[d];
      to.touched[n] = 1, from.touched[n] = 0;
    }
  }

 public:
  const int64_t groups, count;  // of each group

  // `dq` and `touched`: the total of all heads, [B, H, Nq, WIDE] and [B, H, chunks].
  Shares(const sparsec_backward_call& call, int64_t tiles, float* dq, uint8_t* touched)
      : call(call),
        tiles(tiles),
        chunks(HEADS / KV_HEADS * chunks_of(call)),
        groups(call.batch * KV_HEADS),
        count(std::max<int64_t>(std::min((TASKS + groups - 1) / std::max<int64_t>(groups, 1), tiles / TILES), 1)) {
    group.reset(new (std::nothrow) Group[groups]);
    done.reset(new (std::nothrow) Room*[groups * count]());
    for (int64_t n = 0; n < groups && group; ++n)
      group[n] = {{{dq + n * numbers(), touched + n * chunks}, nullptr}, 0, false};
  }
  ~Shares() {
    for (int64_t n = 0; n < groups * count && done; ++n)
      if (n % count > 0) std::free(done[n]);  // of shares whose turn has not come, for memory ran out
    while (unused) std::free(std::exchange(unused, unused->next));
  }
  bool ready() const { return group && done; }
  int64_t tasks() const { return groups * count; }
  int64_t most_rooms() const { return SUMS_BYTES / std::max<int64_t>(numbers() * sizeof(float), 1); }
  // As many as have room for sums.
  int threads() const {
    return int(std::max<int64_t>(std::min<int64_t>(call.threads, count == 1 ? call.threads : most_rooms()), 1));
  }
  // The first keys first: causal, most queries see them.
  Share operator[](int64_t task) const {
    const int64_t number = task / groups;
    return {task % groups, number, tiles * number / count, tiles * (number + 1) / count};
  }

  // Sums of a share in which nothing is touched; null: memory ran out. Share 0 has the total. Where all rooms hold sums
  // that wait for others, so does this one, but not the one that they wait for.
  Sums* start(const Share& share) {
    if (share.number == 0) return &group[share.group].total.sums;
    for (;;) {
      Room* room;
      bool more = false;
#pragma omp critical(sparsec_shares)
      {
        room = unused;
        if (room) unused = room->next;
        else more = given_up || made < most_rooms() || group[share.group].added == share.number;
        made += more;
      }
      if (more) room = new_room();
      if (room) return &room->sums;
      if (more) return give_up();
      std::this_thread::yield();
    }
  }

  Sums* give_up() {
#pragma omp critical(sparsec_shares)
    given_up = true;
    return nullptr;
  }

  // Adds the sums of a share, and those of later ones that waited for it, unless they wait for others themselves.
  void finish(const Share& share, Sums* sums) {
    Group& of = group[share.group];
    Room** const rooms = done.get() + share.group * count;
    bool mine;
#pragma omp critical(sparsec_shares)
    {
      rooms[share.number] = (Room*)sums;  // its first member
      mine = !of.adding;
      of.adding = true;
    }
    while (mine) {
      Room* next = nullptr;
#pragma omp critical(sparsec_shares)
      {
        if (of.added < count) next = std::exchange(rooms[of.added], nullptr);
        if (next) ++of.added;
        else of.adding = false;
      }
      if (!next) return;
      if (next == &of.total) continue;
      add(next->sums, of.total.sums);
#pragma omp critical(sparsec_shares)
      {
        next->next = unused;
        unused = next;
      }
    }
  }
};
