"""For all tests."""

from __future__ import annotations

import os

from tests.path import without_environments


def pytest_configure() -> None:
    """Peers are Debian's, also where the environment is activated."""
    os.environ["PATH"] = without_environments(os.environ["PATH"])
