"""Compare two segmentations structure by structure, in patient space.

Either side is a NIfTI label map, a DICOM SEG (BINARY or LABELMAP) or an RTSTRUCT. The truth is brought onto
the grid of the mask by the two affines: exactly, by index, where both grids have the same voxel centres up to
order and direction of the axes; else by nearest neighbour, and the result says so. Contours are rasterised on
the grid of the other side. Nothing is cut off at the edge of either grid.

Metrics, A the mask and B the truth:

- Dice 2|A∩B| / (|A|+|B|) and Jaccard |A∩B| / |A∪B|, of voxels;
- the surface of a mask: its voxels with at least one neighbour across a face that is not in it; what lies
  outside of the image is not in it. A distance goes from the centre of a surface voxel of one side to the
  nearest centre of the other side's surface, in millimetres;
- Hausdorff 95: of each direction the 95th percentile (linear between ranks) of all distances, the larger of
  both; as ``monai.metrics.compute_hausdorff_distance(percentile=95, directed=False)``;
- surface Dice at a tolerance: the share of the surface voxels of both sides whose distance is at most the
  tolerance (Nikolov et al. 2018, by voxels); as ``monai.metrics.compute_surface_dice``. DeepMind's package
  weights by area instead, so its numbers differ a little;
- difference in volume: A − B in mL, and in percent of B, each volume on its own grid.

Where neither side has a structure all ratios are None; where one side lacks it they are 0, and there is no
distance.
"""

from ai.compare.cases import Case, Cases, compare_cases
from ai.compare.reading import label_map, read_segmentation
from ai.compare.rows import Comparison, Row, compare, compare_files
from ai.compare.segmentation import Segmentation

__all__ = [
    "Case",
    "Cases",
    "Comparison",
    "Row",
    "Segmentation",
    "compare",
    "compare_cases",
    "compare_files",
    "label_map",
    "read_segmentation",
]
