"""Coverage-guided fuzzing of a reader with Atheris (libFuzzer), for ``make fuzz`` and ``make soak``.

``python -m tests.fuzz.coverage_guided TARGET [libFuzzer options]``, for example ``-max_total_time=300``;
without a target it prints the names of all. The corpus grows in ``.fuzz/TARGET``; an input that breaks a
reader is written to ``.fuzz/`` and the exit code is not 0.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("There is no Atheris for this machine: it needs Linux on x86-64 and Python 3.11 to 3.13.")

with atheris.instrument_imports(include=["gateway.receive", "ai.source"]):
    from tests.fuzz import targets

from tests.fuzz import seeds

CORPUS = Path(".fuzz")


def main(arguments: list[str]) -> None:
    """Fuzz one target until the time is over or a bug is found."""
    if not arguments:
        sys.stdout.write("\n".join(targets.TARGETS) + "\n")
        return
    target = arguments[0]
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds.of(target):
        (folder / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    prefix = f"-artifact_prefix={CORPUS}/{target}-"
    atheris.Setup(
        [sys.argv[0], "-timeout=20", "-rss_limit_mb=1024", prefix, *arguments[1:], str(folder)],
        targets.TARGETS[target],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
