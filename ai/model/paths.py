"""Texts of a fixed form, as cards write them: names of files, single lines; and opening such a file."""

from __future__ import annotations

import errno
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

_PATH = re.compile(r"[^/\\:\0]+(/[^/\\:\0]+)*")


def below_folder(name: str) -> str:
    """A relative path with ``/`` that stays below its folder; raises ValueError for any other text."""
    if not _PATH.fullmatch(name) or {".", ".."} & set(name.split("/")):
        raise ValueError(f"{name!r} is no file below the model's folder: write its relative path with /")
    return name


def one_line(text: str) -> str:
    """Text that DICOM can hold as one value (PS3.5 6.2, LO); raises ValueError for any other."""
    if "\\" in text or "\n" in text:
        raise ValueError("must be one line without a backslash")
    return text


Line = Annotated[str, AfterValidator(one_line)]
"""Text on one line, as DICOM can hold it."""
FileName = Annotated[str, AfterValidator(below_folder)]
"""Path of a file of a model below the model's folder."""


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; raises OSError for what is no regular file, without waiting for it."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
