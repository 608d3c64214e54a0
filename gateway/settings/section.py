"""What every section of the configuration is made of: units, bounds, no unknown settings."""

from __future__ import annotations

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
Seconds = Annotated[
    float, BeforeValidator(parse_duration_s), Field(ge=0), WithJsonSchema(text_schema(DURATION_UNITS))
]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0), WithJsonSchema(text_schema(SIZE_UNITS))]
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
