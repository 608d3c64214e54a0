"""What localisers have found on the last images, so that pipelines that share one do not run it again.

An image is known by its voxels and its grid, not by what somebody calls it: the answer of one patient can
never be taken for that of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping, Sequence

import numpy as np

from ai.model import Prediction
from ai.volume import Volume

Shared = MutableMapping[tuple[str, str], Prediction]

_MOST_IMAGES = 4
_MOST_BYTES = 1 << 30


class Answers:
    """Answers by image, each by the model's id and digest; the oldest images are forgotten first."""

    def __init__(self, most_images: int = _MOST_IMAGES, most_bytes: int = _MOST_BYTES) -> None:
        self._most_images = most_images
        self._most_bytes = most_bytes
        self._by_image: dict[bytes, dict[tuple[str, str], Prediction]] = {}

    def of(self, channels: Sequence[Volume]) -> Shared:
        """The answers on an image, to be read and added to; the image becomes the newest."""
        key = _digest(channels)
        found = self._by_image.pop(key, {})
        self._by_image[key] = found
        while len(self._by_image) > 1 and self._are_too_many():
            del self._by_image[next(iter(self._by_image))]
        return found

    def _are_too_many(self) -> bool:
        held = (answer.labels.nbytes for image in self._by_image.values() for answer in image.values())
        return len(self._by_image) > self._most_images or sum(held) > self._most_bytes


def _digest(channels: Sequence[Volume]) -> bytes:
    """Of everything that a model is given."""
    digest = hashlib.blake2b(digest_size=32)
    for volume in channels:
        geometry = volume.geometry
        told = (volume.unit, volume.voxels.dtype.str, geometry.shape, geometry.is_projection, geometry.needs)
        digest.update(repr(told).encode())
        digest.update(np.ascontiguousarray(geometry.index_to_lps).data)
        digest.update(np.ascontiguousarray(geometry.origins_mm).data)
        digest.update(np.ascontiguousarray(volume.voxels).data)
    return digest.digest()
