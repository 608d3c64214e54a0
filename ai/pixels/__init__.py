"""Pixels of image planes in the values that a model wants: checked, decoded, masked, rescaled.

:func:`frame_pixels` makes every check that a header allows and says where each frame lies in its file;
:func:`decode_into` decodes one frame of it later, in any thread. ``layout`` and ``rescale`` read the header,
``fragments`` finds the bytes of each frame, ``codestream`` reads what compressed data says of itself before
``decoders`` spends memory on it, ``suv`` and ``philips`` know the scales of PET and of Philips MR.

Scales: ``modality`` is what Rescale Slope and Intercept give (PS3.3 C.11.1), ``suv_bw`` the standardized
uptake value by body weight, ``philips`` the floating point value of a Philips MR scanner.
"""

from ai.pixels.decode import NotInt16, decode_into
from ai.pixels.frames import FramePixels, Scale, frame_pixels, unit_of
from ai.pixels.values import AIR_HU

__all__ = ["AIR_HU", "FramePixels", "NotInt16", "Scale", "decode_into", "frame_pixels", "unit_of"]
