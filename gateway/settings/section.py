"""What every section of the configuration is made of: units, bounds, no unknown settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from gateway.settings.units import (
    DURATION_UNITS,
    SIZE_UNITS,
    parse_bytes,
    parse_duration_s,
    parse_fraction,
    text_schema,
)
from gateway.uids import is_ae_title


def _ae_title(text: str) -> str:
    if not is_ae_title(text):
        raise ValueError("an AE title has 1 to 16 printable characters and no backslash")
    return text.strip()


AETitle = Annotated[str, AfterValidator(_ae_title)]
_DAY_S = 86400.0


def _bounded(most: float, said: str, *, zero: bool) -> AfterValidator:
    """From 0 (or from just above it) to ``most``; said in the units in which people write."""

    def check(value: float) -> float:
        if not (0 <= value <= most if zero else 0 < value <= most):
            raise ValueError(f"must be {'at least 0' if zero else 'more than 0'} and at most {said}")
        return value

    return AfterValidator(check)


_DURATION_SCHEMA = WithJsonSchema(text_schema(DURATION_UNITS))
_TEN_YEARS_S = 3650 * _DAY_S  # points in time stay within what calendars and the journal can hold
_MOST_BYTES = 2**50
_MOST_PDU_BYTES = 2**30
_LEAST_PDU_BYTES = 4096

Seconds = Annotated[
    float, BeforeValidator(parse_duration_s), _bounded(_TEN_YEARS_S, "3650d", zero=True), _DURATION_SCHEMA
]
Wait = Annotated[
    float, BeforeValidator(parse_duration_s), _bounded(_TEN_YEARS_S, "3650d", zero=False), _DURATION_SCHEMA
]
"""Before the next attempt, or for work to be done: 0 would be attempts without end, or no time at all."""
Timeout = Annotated[
    float, BeforeValidator(parse_duration_s), _bounded(_DAY_S, "1d", zero=False), _DURATION_SCHEMA
]
"""The system counts those of sockets in milliseconds, in 31 bits: 24 days."""
DrainTime = Annotated[
    float, BeforeValidator(parse_duration_s), _bounded(_DAY_S, "1d", zero=True), _DURATION_SCHEMA
]

_SIZE_SCHEMA = WithJsonSchema(text_schema(SIZE_UNITS))
Bytes = Annotated[
    int, BeforeValidator(parse_bytes), _bounded(_MOST_BYTES, "1048576GiB", zero=True), _SIZE_SCHEMA
]
SizeLimit = Annotated[
    int, BeforeValidator(parse_bytes), _bounded(_MOST_BYTES, "1048576GiB", zero=False), _SIZE_SCHEMA
]
"""Of what is taken in; 0 would refuse everything."""


def _pdu_bytes(value: int) -> int:
    if value != 0 and not _LEAST_PDU_BYTES <= value <= _MOST_PDU_BYTES:
        raise ValueError("must be 0 (no limit) or between 4KiB and 1GiB")
    return value


PduBytes = Annotated[int, BeforeValidator(parse_bytes), AfterValidator(_pdu_bytes), _SIZE_SCHEMA]
"""The length of a PDU is a field of 32 bits (PS3.8 9.3.1); 0: no limit (PS3.8 D.1.1)."""


def _path(value: object) -> object:
    """A file or folder that a person named; the shell's ``~`` would become a folder of that name."""
    if isinstance(value, str):
        if not value.strip() or "\0" in value:
            raise ValueError("must name a file or folder")
        if value.startswith("~"):
            raise ValueError("~ is not replaced here: write the whole path, or ${HOME}/…")
    return value


PathName = Annotated[Path, BeforeValidator(_path)]
Fraction = Annotated[
    float, BeforeValidator(parse_fraction), Field(ge=0, le=1), WithJsonSchema(text_schema({"%": 0.01}))
]


Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A part of the configuration: unknown settings are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _boolean_where_it_belongs(cls, value: object, info: ValidationInfo) -> object:
        """Few settings are booleans; elsewhere pydantic would read ``true`` as the number 1."""
        wanted = cls.model_fields[info.field_name or ""].annotation is bool
        if isinstance(value, bool) and not wanted:
            raise ValueError("true and false are no values of this setting; text goes in quotes")
        if wanted and not isinstance(value, bool):
            raise ValueError("must be true or false, without quotes")
        return value


class Listen(Section):
    """Where a listener waits for peers. Port 0 takes a free one."""

    host: str = "0.0.0.0"  # noqa: S104 - a DICOM node is there to be reached; the file may narrow it
    port: Port
