"""The structures of a card, and their codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from ai import terminology
from ai.model.paths import Line
from ai.model.recipe import Part
from ai.terminology import Code, CodedStructure

_Byte = Annotated[int, Field(ge=0, le=255)]


class CodeEntry(Part):
    """A coded concept that the card itself gives (PS3.3 8.8).

    Attributes
    ----------
    value
        Code Value, such as ``10200004``.
    scheme
        Coding Scheme Designator, such as ``SCT``; a private one starts with ``99``.
    meaning
        Code Meaning: the concept in words.
    """

    value: Line = Field(min_length=1, max_length=16)
    scheme: Line = Field(min_length=1, max_length=16)
    meaning: Line = Field(min_length=1, max_length=64)

    @property
    def code(self) -> Code:
        """It as a code."""
        return Code(self.value, self.scheme, self.meaning)


class Coding(Part):
    """Codes and colour of a structure that ``terminology/codes.csv`` has no row for, or has otherwise.

    Attributes
    ----------
    category
        Of PS3.16 CID 7150, such as Anatomical Structure.
    type
        What it is within the category, such as Liver.
    modifier
        Of the type: its side, or another part of it.
    region
        Where in the body something lies that is found in many places.
    rgb
        Display colour, sRGB 0 to 255.
    """

    category: CodeEntry
    type: CodeEntry
    modifier: CodeEntry | None = None
    region: CodeEntry | None = None
    rgb: tuple[_Byte, _Byte, _Byte]


class Structure(Part):
    """One structure that the model looks for. ``key`` names its row in terminology/codes.csv.

    With ``coding`` the card gives the codes itself, and ``key`` is only its name for programs.

    Attributes
    ----------
    number
        Its value in the label map, and its Segment Number. Structures are numbered 1, 2, 3 … in order.
    key
        Name for programs: lower case letters, digits and underscores, each once in a card.
    label
        Name for people: the Segment Label.
    description
        What belongs to it, as a phrase without a full stop: the Segment Description, also in the report.
    coding
        Its own codes and colour; None: those of its row in the table.
    group
        Name shared by structures that stay in one object, where they fit, when a segmentation is split.
        Empty: none.
    includes
        Numbers of other structures that are part of this one, all of them: a whole tumour includes its core
        and what enhances, the core what enhances. The label map gives each voxel the number of the innermost;
        segment, measurements and rules of a structure count its own voxels and those that it includes.
        ``mask.nii.gz`` is the label map. Empty: its own number only.
    """

    number: int = Field(ge=1, le=255)
    key: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=64)
    label: Line = Field(min_length=1, max_length=64)  # Segment Label is LO
    description: str = Field(default="", max_length=1024)  # Segment Description is ST
    coding: Coding | None = None
    group: str = Field(default="", max_length=64)
    includes: tuple[Annotated[int, Field(ge=1, le=255)], ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """Values of a label map that belong to it: its own, and those of what it includes."""
        return (self.number, *self.includes)

    @property
    def coded(self) -> CodedStructure:
        """Its codes and colour; raises ModelError STRUCTURE_NOT_CODED where there are none."""
        if self.coding is None:
            return terminology.coded(self.key)
        own = self.coding
        return CodedStructure(
            key=self.key,
            label=self.label,
            category=own.category.code,
            type=own.type.code,
            modifier=own.modifier.code if own.modifier else None,
            rgb=own.rgb,
            source="model card",
            region=own.region.code if own.region else None,
        )


def check_inclusions(structures: Sequence[Structure]) -> None:
    """Make sure that what structures include exists, and that parts of parts are listed.

    Together these forbid circles: a structure would have to include itself.

    Raises
    ------
    ValueError
        With the structure, and what to write.
    """
    known = {structure.number: structure for structure in structures}
    for structure in structures:
        name, given = f"the structure {structure.key!r}", structure.includes
        if structure.number in given:
            raise ValueError(f"{name} includes its own number {structure.number}; leave it out")
        if len(set(given)) != len(given):
            raise ValueError(f"{name} includes a number twice")
        for number in given:
            if number not in known:
                raise ValueError(f"{name} includes {number}; there are structures 1 to {len(known)}")
            part = known[number]
            if structure.number in part.includes:
                raise ValueError(f"{name} and {part.key!r} include each other; one is the whole")
            missing = ", ".join(str(n) for n in part.includes if n not in given)
            if missing:
                inner = f"{number} ({part.key!r}), which includes {missing}"
                raise ValueError(f"{name} includes {inner}: add that to its own")
