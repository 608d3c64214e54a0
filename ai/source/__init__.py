"""One bounded reader of DICOM headers, for admission and for the library.

``elements`` walks an encoded data set within bounds, ``values`` turns values into text,
``functional_groups`` reads enhanced multi-frame images frame by frame, ``private`` finds the b-value
where vendors hide it; ``facts`` puts them together. ``part10`` reads a file, ``slices`` says what
geometry may know of it. Nothing here touches pixels.
"""

from ai.source.facts import Header, PixelData, read_header
from ai.source.keywords import ALL, GEOMETRY_KEYWORDS, IDENTITY_KEYWORDS, PIXEL_KEYWORDS, SPLIT_KEYWORDS
from ai.source.part10 import SourceFile, read_file
from ai.source.slices import slice_headers
from ai.source.values import Facts

__all__ = [
    "ALL",
    "GEOMETRY_KEYWORDS",
    "IDENTITY_KEYWORDS",
    "PIXEL_KEYWORDS",
    "SPLIT_KEYWORDS",
    "Facts",
    "Header",
    "PixelData",
    "SourceFile",
    "read_file",
    "read_header",
    "slice_headers",
]
