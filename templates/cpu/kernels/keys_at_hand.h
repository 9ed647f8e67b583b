#pragma once
#include "ahead.h"
#include "micro_kernels.h"
#include "printed/modifiers.h"

// ---- The keys of one tile and the panels that attend to them; their products by the micro-kernels.
struct Keys {  // the keys of one tile to attend to, in order; ROWS more entries, so that every block is whole
  int count;
  const operand *key[KEY_TILE + ROWS], *value[KEY_TILE + ROWS];
  bool finite;  // all values; set where a mask is
  int at[KEY_TILE + ROWS];  // their positions; set where a modifier reads them
};

typedef Operands::Across<DV, KEY_TILE + ROWS> Values;  // of those keys, with units along the keys

struct Panel {
  operand q[units_of(D)][PANEL * DEPTH];  // as `Operands::scale` leaves it
  float factor;  // the score's scale
  float o[DV][PANEL];  // the sum of weights times values, relative to 2^peak
  vec peak[VECS];  // within 8 below the largest score so far; -inf before the first live key
  vec total[VECS];  // the sum of weights, relative to 2^peak
  ivec at[VECS];  // positions of the queries
};

struct PanelProducts {
  static constexpr Name NAME = Operands::NAME;
  Values values;
  const operand* const* value;  // those of the keys at hand

  void start() {}
  void stop() {}
  void open(const Keys& keys) { value = values.of(keys.value, keys.count); }
  // Whether `products` leaves those of keys and queries; else they are formed in registers.
  bool whole() const { return false; }
  void products(const Panel&, int, float (*)[PANEL]) const {}

  // Adds the products of weights and values; `seen`: the mask counts, for some value is not finite.
  void add(Panel& panel, const Keys& keys, operand* weights, const ivec (*mask)[VECS], bool seen) const {
    if (!seen) accumulate<PANEL>(value, keys.count / DEPTH, weights, panel.o);
    else accumulate_seen<PANEL>(value, keys.count / DEPTH, weights, mask, panel.o);
  }
};
