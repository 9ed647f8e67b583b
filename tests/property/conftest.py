"""How many examples the properties draw: `SPARSEC_PROFILE=ci` (the default) or `nightly`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
settings.register_profile("ci", derandomize=True, database=None, deadline=None, suppress_health_check=SLOW)
settings.register_profile("nightly", deadline=None, suppress_health_check=SLOW, print_blob=True)
settings.load_profile(os.environ.get("SPARSEC_PROFILE", "ci"))
