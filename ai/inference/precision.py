"""How exactly a network calculates: what device and processor do well, or the same bits every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

MUCH_BYTES = 512_000_000
"""Sums in float32 beyond this are kept in float16."""

Precision = Literal["float32", "float16", "bfloat16"]
_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Numerics:
    """How a run calculates.

    Attributes
    ----------
    network
        Precision of the network.
    autocast
        torch chooses where the network leaves float32; otherwise its input is converted.
    sums
        Of the tiles' answers: float16 has the digits and saves half the memory, float32 the range.
    spare
        Sums may be float16, as nnU-Net's are, where they would take much memory in float32.
    """

    device: str
    network: Precision
    autocast: bool
    sums: torch.dtype
    deterministic: bool
    spare: bool = True

    @property
    def input(self) -> torch.dtype:
        """What the network is given."""
        return torch.float32 if self.autocast else _TYPES[self.network]

    def sums_for(self, values: int) -> torch.dtype:
        """The type of so many sums."""
        return torch.float16 if self.spare and values * 4 > MUCH_BYTES else self.sums

    @contextmanager
    def active(self) -> Iterator[None]:
        """While the network runs: no gradients, autocast and determinism as chosen."""
        kind = torch.device(self.device).type
        cast = torch.autocast(kind, _TYPES[self.network]) if self.autocast else nullcontext()
        before, tuned = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = not self.deterministic  # tiles have one shape: the search pays
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
            torch.use_deterministic_algorithms(True)
        try:
            with torch.no_grad(), cast:
                yield
        finally:
            torch.use_deterministic_algorithms(before)
            torch.backends.cudnn.benchmark = tuned


def choose(wanted: str, takes: str, device: str, deterministic: bool) -> Numerics:
    """The numerics of a run.

    Parameters
    ----------
    wanted
        ``Recipe.precision``.
    takes
        ``Networks.dtype``: ``any`` where torch may autocast, else the one precision that the network takes.
    """
    if takes != "any":
        network = _named(takes)
        half = torch.float32 if network == "float32" or deterministic else torch.float16
        return Numerics(device, network, False, half, deterministic, spare=not deterministic)
    if deterministic:
        return Numerics(device, "float32", False, torch.float32, True, spare=False)
    network = _best(device) if wanted == "auto" else _named(wanted)
    sums = torch.float32 if network == "float32" else torch.float16
    return Numerics(device, network, network != "float32", sums, False)


def _best(device: str) -> Precision:
    """float16 on a GPU; bfloat16 on a processor that multiplies it; float16 on a CPU is slow."""
    if torch.device(device).type == "cuda":
        return "float16"
    return "bfloat16" if _multiplies_bfloat16() else "float32"


def _multiplies_bfloat16() -> bool:
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in checks)


def _named(name: str) -> Precision:
    if name == "float32":
        return "float32"
    return "float16" if name == "float16" else "bfloat16"
