"""How much memory a device has for models, and when an error means that there was too little."""

from __future__ import annotations

import gc
import resource
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

_GPU_RESERVE_BYTES = 1 << 30  # the context of CUDA, libraries' workspaces, fragments
_GPU_SHARE = 0.95
_CPU_SHARE = 0.7  # the rest is for the worker, which holds the series twice, and for everybody else
_GROUPS = Path("/sys/fs/cgroup")
_CPU_ALLOCATOR = "DefaultCPUAllocator"  # torch has no class of its own for this one


def budget_bytes(device: str) -> int:
    """What weights and runs may take together on a device, as it is now."""
    if device.startswith("cuda"):
        free, _total = _torch().cuda.mem_get_info(device)
        return max(int(free * _GPU_SHARE) - _GPU_RESERVE_BYTES, 0)
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    available = min([_available_bytes(), *_group_limits()])
    return int(min(available, limit if limit != resource.RLIM_INFINITY else available) * _CPU_SHARE)


def allocated_bytes(device: str) -> int:
    """What this process holds on a GPU now; 0 for a CPU, where nobody can tell one model from another."""
    return int(_torch().cuda.memory_allocated(device)) if device.startswith("cuda") else 0


def release(device: str) -> None:
    """Give freed memory back, so that others can have it."""
    gc.collect()
    if device.startswith("cuda"):
        _torch().cuda.empty_cache()


def is_lack_of_memory(error: BaseException) -> bool:
    """True for MemoryError and torch's OutOfMemoryError, and for that of torch's allocator on a CPU.

    Other RuntimeErrors are not: trying again with less memory would hide what is wrong.
    """
    if isinstance(error, MemoryError):
        return True
    if type(error).__name__ == "OutOfMemoryError" and type(error).__module__.startswith("torch"):
        return True
    return isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error)


def gib(size_bytes: int) -> str:
    """For sentences."""
    return f"{size_bytes / 2**30:.2f} GiB"


def _torch() -> Any:
    return import_module("torch")  # only a device of CUDA needs it here


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 1 << 62


def _group_limits(membership: Path = Path("/proc/self/cgroup"), root: Path = _GROUPS) -> list[int]:
    """Of the control groups that a container or service manager put us into, one in another."""
    limits = []
    with suppress(OSError):
        lines = membership.read_text(encoding="utf-8").splitlines()
        inner = root / next((line[4:] for line in lines if line.startswith("0::/")), "")
        for group in (inner, *inner.parents):
            if not group.is_relative_to(root):
                break
            with suppress(OSError):
                text = (group / "memory.max").read_text(encoding="ascii").strip()
                limits += [int(text)] if text.isdigit() else []
    return limits
