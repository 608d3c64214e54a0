"""The model process shuts itself in: no network, no other process, no writing but in its scratch folder.

Model files are code. What this leaves them is reading what is no patient's, computing, and answering on the
socket that they got.
It is entered before any library is loaded, because the rules on files hold for threads that begin later.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.modelhost.landlock import all_but, confine, is_on_the_way
from gateway.modelhost.seccomp import close_network

CLOSED = "none"
"""What ``network`` says when there is none."""
SCRATCH_ONLY = "scratch folder only"
"""What ``writes`` says when that holds."""
NO_PATIENT_FILES = "no stored images, no results, no journal"
"""What ``reads`` says when that holds."""

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "kfd", "dri")
_GPU_DEVICES = ("nvidia*", "nvidia-caps/*", "dri/*")
_CACHES = (
    "HOME",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "TORCH_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "CUDA_CACHE_PATH",
    "NUMBA_CACHE_DIR",
    "MPLCONFIGDIR",
    "HF_HOME",
    "MONAI_DATA_DIRECTORY",
)


@dataclass(frozen=True)
class Sandbox:
    """What the platform allowed; each value is as the constants above say, or ``open: why``."""

    network: str = "open: not tried"
    writes: str = "open: not tried"
    reads: str = "open: not tried"

    @property
    def complete(self) -> bool:
        """True when nothing is open."""
        return (self.network, self.writes, self.reads) == (CLOSED, SCRATCH_ONLY, NO_PATIENT_FILES)

    def describe(self) -> str:
        """For the health page."""
        return f"sandbox: network {self.network}, writes {self.writes}, reads {self.reads}"


def prepare_scratch(folder: Path) -> None:
    """An empty folder that nobody else may look into."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def scratch_environment(folder: Path) -> dict[str, str]:
    """Everything that libraries want to keep goes to the scratch folder."""
    return {**{name: str(folder) for name in _CACHES}, "PYTHONDONTWRITEBYTECODE": "1"}


def enter(scratch: Path, hidden: Sequence[Path] = (), needed: Sequence[Path] = ()) -> Sandbox:
    """Shut this process in, for good. Call it before there is a second thread.

    Parameters
    ----------
    hidden
        Files, and folders of them, that it must not read.
    needed
        Folders from which it will read what is put there later.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    os.chdir(scratch)
    reads = _why_not_hidden(hidden, needed)
    readable = [] if reads else [*all_but(hidden), *needed, *map(Path, (sys.prefix, sys.base_prefix))]
    writes = confine([scratch], _devices(), readable)
    network = close_network()
    return Sandbox(
        network=f"open: {network}" if network else CLOSED,
        writes=f"open: {writes}" if writes else SCRATCH_ONLY,
        reads=f"open: {reads or writes}" if reads or writes else NO_PATIENT_FILES,
    )


def _why_not_hidden(hidden: Sequence[Path], needed: Sequence[Path]) -> str:
    """Why files cannot be hidden, or nothing."""
    if not hidden:
        return "nothing was named"
    mixed = [str(folder) for folder in needed if is_on_the_way(folder, hidden)]
    return f"{mixed[0]} is missing, or is a folder around data_dir" if mixed else ""


def _devices() -> list[Path]:
    """Device files that may be written to: GPUs must stay usable."""
    root = Path("/dev")
    found = [path for pattern in _GPU_DEVICES for path in root.glob(pattern)]
    return [*(root / name for name in _DEVICES), *found]
