#pragma once
#include "../mass_tiles.h"

// No keys are listed for all queries.
struct ColumnMass {
  static constexpr int64_t tasks = 0;

  ColumnMass(const sparsec_mass_call&, const Tiling<sparsec_mass_call>&) {}
  void run(Work&, const sparsec_mass_call&, const Tiling<sparsec_mass_call>&, int64_t) const {}
};
