"""The model process shuts itself in: no network, no writing but in its scratch folder, no core files.

Model files are code. What this leaves them is reading, computing, and answering on the socket that they got.
It is entered before any library is loaded, because the rules on files hold for threads that begin later.
"""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from gateway.modelhost.landlock import confine_writes
from gateway.modelhost.seccomp import close_network

CLOSED = "none"
"""What ``network`` says when there is none."""
SCRATCH_ONLY = "scratch folder only"
"""What ``writes`` says when that holds."""

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
    """What the platform allowed; each value is ``CLOSED`` / ``SCRATCH_ONLY``, or ``open: why``."""

    network: str = "open: not tried"
    writes: str = "open: not tried"

    @property
    def complete(self) -> bool:
        """True when nothing is open."""
        return self.network == CLOSED and self.writes == SCRATCH_ONLY

    def describe(self) -> str:
        """For the health page."""
        return f"sandbox: network {self.network}, writes {self.writes}"


def prepare_scratch(folder: Path) -> None:
    """An empty folder that nobody else may look into."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)


def scratch_environment(folder: Path) -> dict[str, str]:
    """Everything that libraries want to keep goes to the scratch folder."""
    return {**{name: str(folder) for name in _CACHES}, "PYTHONDONTWRITEBYTECODE": "1"}


def enter(scratch: Path) -> Sandbox:
    """Shut this process in, for good. Call it before there is a second thread."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    os.chdir(scratch)
    writes = confine_writes([scratch], _devices())
    network = close_network()
    return Sandbox(
        network=f"open: {network}" if network else CLOSED,
        writes=f"open: {writes}" if writes else SCRATCH_ONLY,
    )


def _devices() -> list[Path]:
    """Device files that may be written to: GPUs must stay usable."""
    root = Path("/dev")
    found = [path for pattern in _GPU_DEVICES for path in root.glob(pattern)]
    return [*(root / name for name in _DEVICES), *found]
