"""Where the tests and benchmarks find the tools of others."""

from __future__ import annotations

import os
from pathlib import Path


def without_environments(path: str) -> str:
    """A search path without the scripts of virtual environments.

    Where one is activated, pynetdicom's ``storescu`` would be found before DCMTK's.
    """
    folders = path.split(os.pathsep)
    return os.pathsep.join(each for each in folders if not Path(each).with_name("pyvenv.cfg").exists())
