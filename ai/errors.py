"""The exception tree of the imaging library.

::

    AiError
    ├── SeriesRefused         the input is no series that we process; carries a named code
    │   └── NotAVolumeError   its geometry is refused: ``verdict`` is the full NotAVolume record
    ├── HeaderError           bytes that cannot be read as a data set within the bounds
    ├── ModelError            a card is missing or wrong, or the model cannot run here
    │   └── UnknownModel
    └── ResultMismatch        the encoded result does not say what the label map says
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai.geometry import NotAVolume


class AiError(Exception):
    """Root of all errors of the imaging library.

    Parameters
    ----------
    code
        Stable upper-case name, shown by ``aigw study explain``.
    reason
        One sentence for a person, with the numbers.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.code, self.reason))


class SeriesRefused(AiError):
    """The input cannot become a volume: not DICOM, truncated, several series, undecodable …"""


class NotAVolumeError(SeriesRefused):
    """The headers of the series make no volume; ``verdict`` has code, sentence and numbers."""

    def __init__(self, verdict: NotAVolume) -> None:
        super().__init__(verdict.code, verdict.reason)
        self.verdict = verdict

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.verdict,))


class HeaderError(AiError):
    """An encoded data set cannot be read within the bounds: truncated, not parseable, too deep, too large."""


class ModelError(AiError):
    """A model card is wrong, or the model cannot run on this machine."""


class UnknownModel(ModelError):
    """No card of that name in the configured folders."""


class ResultMismatch(AiError):
    """The encoded SEG, read back, differs from the label map in patient space (house rule 6)."""
