"""What holds for every test: other processes share the machine, two of them running tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

#: An example may take its time, and inventing one too: how long either takes says who else is at work.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
