"""Pixels of image planes in the values that a model wants: checked, decoded, masked, rescaled.

:func:`frame_pixels` makes every check that a header allows and says where each frame lies in its file;
:func:`decode_into` decodes one frame of it later, in any thread. ``layout`` and ``rescale`` read the header,
``fragments`` finds the bytes of each frame, ``codestream`` reads what compressed data says of itself before
``decoders`` spends memory on it, ``suv`` and ``philips`` know the scales of PET and of Philips MR,
``screen`` what a viewer makes of the values of a radiograph.

Scales: ``modality`` is what Rescale Slope and Intercept give (PS3.3 C.11.1), ``suv_bw`` the standardized
uptake value by body weight, ``philips`` the floating point value of a Philips MR scanner. Radiographs have no
unit, and some makers store them with bone dark (MONOCHROME1); models of radiographs choose between
``attenuation``, the modality values turned over where they must be so that bone is bright, and ``screen``,
the brightness from 0 to 1 with which a viewer shows the image by its own window or VOI LUT, bone bright too.
"""

from ai.pixels.decode import NotInt16, decode_into
from ai.pixels.frames import FramePixels, Scale, frame_pixels, unit_of
from ai.pixels.values import AIR_HU

__all__ = ["AIR_HU", "FramePixels", "NotInt16", "Scale", "decode_into", "frame_pixels", "unit_of"]
