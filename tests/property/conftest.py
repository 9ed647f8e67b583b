"""How many examples the properties draw: `SPARSEC_PROFILE=ci` (the default), `nightly` or `mutants`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("ci", derandomize=True, database=None, deadline=None, suppress_health_check=SLOW)
settings.register_profile("nightly", deadline=None, suppress_health_check=SLOW, print_blob=True)
FOUND_IS_ENOUGH = (Phase.explicit, Phase.generate)  # a mutant's failing example need not shrink
settings.register_profile("mutants", settings.get_profile("ci"), phases=FOUND_IS_ENOUGH)
settings.load_profile(os.environ.get("SPARSEC_PROFILE", "ci"))
