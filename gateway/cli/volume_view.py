"""How the rows of ``aigw volume`` look to a person; at most 100 columns wide."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from textwrap import TextWrapper
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ai.geometry import Verdict

Record = dict[str, Any]

WIDTH = 100
_ENDING = 8  # characters of a UID that are enough to recognise it
_STYLES = {Verdict.ACCEPTED: "green", Verdict.FIXED: "yellow", Verdict.REFUSED: "red"}
_COLUMNS = ("#", "VERDICT", "SERIES", "SIZE, SPACING mm", "ORIENTATION", "VALUES", "CENTRE LPS mm")


def print_volumes(records: Sequence[Record], others: int) -> None:
    """The table of all rows, the reason of each below it, and how many there are of each verdict."""
    width = min(WIDTH, Console().width) if sys.stdout.isatty() else WIDTH
    out = Console(width=width, highlight=False, markup=False, emoji=False)
    lines = TextWrapper(width, initial_indent="   ", subsequent_indent="   ", break_on_hyphens=False)
    table = Table(*_COLUMNS, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, record in enumerate(records, start=1):
        table.add_row(*_cells(number, record))
    out.print(table)
    for number, record in enumerate(records, start=1):
        out.print(Text(f"\n{number}  ").append_text(_verdict(record)))
        for line in _lines(record):
            out.print(lines.fill(_plain(line)))
    out.print()
    out.print(_summary(records, others))


def _cells(number: int, record: Record) -> list[str | Text]:
    verdict = Text(record["verdict"], style=_STYLES[Verdict(record["verdict"])])
    first: list[str | Text] = [str(number), verdict, _series(record)]
    if record["shape"] is None:
        return [*first, _plain(record["code"])]
    orientation = record["orientation"].replace(", ", "\n")
    return [
        *first,
        f"{product(record['shape'])}\n{product(record['spacing_mm'])}",
        f"{orientation}\n{record['axes']}" if record["axes"] else orientation,
        f"{range_text(record)}\nmean {number_text(record['intensity_mean'])}",
        "{}, {},\n{}".format(*centre_texts(record)),
    ]


def _series(record: Record) -> str:
    if record["series_instance_uid"] is None:
        return f"{len(record['files'])} {'file' if len(record['files']) == 1 else 'files'}"
    uid = record["series_instance_uid"]
    ending = f"…{uid[-_ENDING:]}" if len(uid) > _ENDING else uid or "no UID"
    images = "1 image" if record["images"] == 1 else f"{record['images']} images"
    return f"{_plain(record['modality'] or '?')} {_plain(ending)}\n{images}"


def _verdict(record: Record) -> Text:
    verdict, code = record["verdict"], record["code"]
    text = verdict if verdict == code else f"{verdict} {code}"
    return Text(text, style=_STYLES[Verdict(verdict)])


def _lines(record: Record) -> Iterator[str]:
    """Below the verdict: series and part, as ``--series`` and ``--part`` want them; reason; files written."""
    if record["series_instance_uid"] is not None:
        yield f"series {record['series_instance_uid'] or '(no UID)'}"
    if record["part"]:
        yield f"part {shlex.quote(record['part'])}"
    yield record["reason"]
    if record.get("suv_bw_factor") is not None:
        yield f"SUV by body weight: value × {record['suv_bw_factor']:.6g}."
    elif "suv_bw_reason" in record:
        yield record["suv_bw_reason"]
    yield from (f"wrote {record[kind]}" for kind in ("picture", "nifti") if kind in record)


def _summary(records: Sequence[Record], others: int) -> str:
    refused = sum(record["verdict"] == Verdict.REFUSED for record in records)
    volumes = len(records) - refused
    text = f"{volumes} {'volume' if volumes == 1 else 'volumes'}, {refused} refused."
    if others:
        text += f" {others} {'file is' if others == 1 else 'files are'} not DICOM."
    return text


def product(numbers: Sequence[float]) -> str:
    """``291 × 512 × 512``; lengths with four digits."""
    return " × ".join(str(n) if isinstance(n, int) else f"{n:.4g}" for n in numbers)


def range_text(record: Record) -> str:
    """``-1024 to 3071 HU``."""
    low, high = (number_text(record[f"intensity_{end}"]) for end in ("minimum", "maximum"))
    return f"{low} to {high} {record['unit']}".rstrip()


def centre_texts(record: Record) -> list[str]:
    """LPS millimetres of the centre, to a tenth; never a negative zero."""
    return [f"{round(mm, 1) + 0.0:.1f}" for mm in record["centre_lps_mm"]]


def number_text(value: float) -> str:
    """A voxel value with six digits, whole numbers in full."""
    return f"{value:.0f}" if value == round(value) else f"{value:.6g}"


def _plain(text: str) -> str:
    """Text from headers and file names without characters that steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
