"""What to do when memory does not suffice: the same work again, in less of it.

===== ====================================================================
rung  what changes
===== ====================================================================
0     the recipe's batch; sums on the device
1     one tile at a time
2     sums and labels in main memory, the network on the device
3     everything on the CPU, where the networks can be moved
===== ====================================================================

Only a lack of memory leads up a rung; every other error is one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ai.errors import ModelError
from ai.model import Prediction, RunContext, Step, Steps

_CPU_ALLOCATOR = "DefaultCPUAllocator"  # torch says a lack of main memory by RuntimeError


@dataclass(frozen=True)
class Rung:
    """One way to run.

    Attributes
    ----------
    single
        One tile at a time.
    host
        Sums and labels in main memory.
    moved
        Networks on the CPU.
    """

    number: int
    single: bool = False
    host: bool = False
    moved: bool = False


RUNGS = (Rung(0), Rung(1, True), Rung(2, True, True), Rung(3, True, True, True))


def rungs_for(device: str, movable: bool) -> tuple[Rung, ...]:
    """Those that differ on a device."""
    if torch.device(device).type == "cpu":
        return RUNGS[:2]
    return RUNGS if movable else RUNGS[:3]


def lacks_memory(error: BaseException) -> bool:
    """Whether it is a lack of memory, of the device or of the machine, and nothing else."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error)


def climb(attempt: Callable[[Rung], Steps], rungs: tuple[Rung, ...], run: RunContext) -> Steps:
    """Run an attempt from the rung of ``run`` on, one higher after each lack of memory.

    Fractions never go back; ``run.rung`` is left at the rung that worked.

    Raises
    ------
    ModelError
        ``OUT_OF_MEMORY`` when the last rung does not suffice either.
    """
    reached = 0.0
    start = min(run.rung, rungs[-1].number)
    for rung in rungs[start:]:
        run.rung = rung.number
        steps = attempt(rung)
        try:
            while True:
                step = next(steps)
                reached = max(reached, step.fraction)
                yield Step(step.stage, reached)
        except StopIteration as end:
            prediction: Prediction = end.value
            return prediction
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
        finally:
            steps.close()
        release()
        yield Step("memory", reached)
    raise ModelError(
        "OUT_OF_MEMORY",
        f"Memory does not suffice for this volume, not even on rung {run.rung} of the memory ladder; "
        "run it on a larger device, or with a model of smaller tiles.",
    )


def release() -> None:
    """Give unused memory back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
