"""For all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.path import without_environments

# A change is judged by the examples that its parent passed, on however busy a machine; `make soak` explores.
settings.register_profile("exploring", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("exploring"), derandomize=True)
settings.load_profile("repeatable")


def pytest_configure() -> None:
    """Peers are Debian's, also where the environment is activated."""
    os.environ["PATH"] = without_environments(os.environ["PATH"])
