"""The measurements of a run as a Comprehensive 3D SR: TID 1500, "Imaging Measurement Report" (PS3.16).

What a reader finds, in this order: the language (TID 1204), the observer (the algorithm as a device, TID
1004), the procedure, a summary and comments that say in plain text what was found and what it is worth, the
image library (TID 1600), then one group for every structure: one that was found refers to its segment (TID
1411; on a radiograph to its one frame, TID 1410), one that was not found or not looked for is said to be so
(TID 1501); last one TID 1501 group for every pair of a left and a right structure. Summary and comments are
an addition that the template allows (TID 1500 is extensible); they come early because viewers show the tree
from the top.

The report is complete, preliminary and unverified: no person has looked at it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from ai.measure import found_pairs
from ai.results.context import ResultContext
from ai.results.planes import references, source_planes
from ai.results.sr_document import report
from ai.results.sr_measurements import pair_group, structure_groups
from ai.results.summary import summary


def build_sr(context: ResultContext, segs: Sequence[Dataset]) -> Dataset:
    """Build the report of one run.

    Volumes are in millilitres, lengths in millimetres, areas on the detector of a radiograph in square
    millimetres. Attenuation (mean, SD, minimum, maximum) is given when the volume is in HU. The same context
    and SEG give the same data set.

    Parameters
    ----------
    segs
        The SEGs of the same run: their segments are referred to by number, and their tracking and algorithm
        identification are repeated. Pixels are not needed; frames only of a radiograph.

    Raises
    ------
    ResultMismatch
        ``SEGMENT_MISSING`` when the SEGs have no segment for a structure that was found.
    """
    pairs = [pair_group(context, pair) for pair in found_pairs(context.measurements)]
    dataset = report(
        context,
        summary(context),
        references(source_planes(context.series)),
        [*structure_groups(context, segs), *pairs],
        [*context.series.datasets, *segs],
    )
    dataset.SeriesInstanceUID = context.series_uid("sr")
    dataset.SOPInstanceUID = context.instance_uid("sr")
    return dataset
