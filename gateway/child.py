"""How a process that we start behaves: it ends with its parent, leaves no core file, obeys its limits."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_NICENESS = 5  # the receiver answers peers while a model uses every core
_PASSED_ON = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "USER")
_PASSED_ON_PREFIXES = ("LC_", "PYTHON", "LD_LIBRARY", "CUDA", "NVIDIA", "OMP_", "MKL_", "TORCH", "AIGW_TEST_")


def environment_for_child(environment: Mapping[str, str]) -> dict[str, str]:
    """What of our environment a worker needs: no secrets, no proxies."""
    return {
        name: value
        for name, value in environment.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }


def live_with(parent_pid: int, oom_score: int) -> None:
    """End when the parent ends, however it ends; a higher score is taken first when memory runs out.

    The kernel watches the parent's thread that started us, so that one must live as long as we may.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, signal.SIG_IGN)  # the gateway decides when we end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patient data
    os.nice(max(0, _NICENESS - os.nice(0)))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(oom_score))


def limit_memory(most_bytes: int) -> None:
    """Refuse this process more writable memory than that; it sees a MemoryError then, and lives on."""
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))


def describe_ending(code: int) -> str:
    """``signal 9`` or ``exit code 1``."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
