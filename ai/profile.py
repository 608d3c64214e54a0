"""How results are written for a destination: what its viewer reads and what its archive takes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

SegmentationKind = Literal["binary", "label_map", "fractional"]
Compression = Literal["none", "rle", "jpeg_ls"]


@dataclass(frozen=True)
class Profile:
    """One way to write the results of a run; destinations with the same one get the same objects.

    Attributes
    ----------
    segmentation
        ``binary`` (Segmentation Storage, every viewer takes it), ``label_map`` (Label Map Segmentation
        Storage, small), ``fractional`` (occupancy of each voxel, 0 or 1 in 255 steps).
    compression
        Of label maps and fractional segmentations; bits of binary ones are never compressed (PS3.5 8.2).
    maximum_frames, maximum_segments
        What one object may have at most; None: no limit.
    when_over
        What is done with a result over a limit: ``split`` into several objects of one series, structures
        of one group together where they fit; ``label_map``, which has one frame for each slice.
    absent
        A structure that was looked for and not found: an empty ``segment``, or said in the ``report`` only.
    report, overview, rtstruct
        Which objects are written besides the segmentation.
    """

    segmentation: SegmentationKind = "binary"
    compression: Compression = "none"
    maximum_frames: int | None = None
    maximum_segments: int | None = None
    when_over: Literal["split", "label_map"] = "split"
    absent: Literal["segment", "report"] = "segment"
    report: bool = True
    overview: bool = True
    rtstruct: bool = False

    @property
    def key(self) -> str:
        """A name that changes with any setting; empty for the default, whose UIDs need no name."""
        if self == DEFAULT_PROFILE:
            return ""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


DEFAULT_PROFILE = Profile()
"""What every viewer and archive takes that we know of."""
