"""The imaging library: DICOM series in, label maps and DICOM results out.

Theory of operation
-------------------
Headers are read within bounds (``source``). Those of a series become parts (``geometry``): each a
:class:`ai.geometry.VolumeGeometry` or a named reason why it is no volume. A part becomes a
:class:`ai.volume.Volume`: one array ``(slices, rows, columns)`` in modality units, decoded in parallel
(``pixels``, ``decoding``), and one affine to LPS millimetres (``volume``). Tilted or uneven slices are put
on an upright grid (``resample``). A model, described by its card (``model``, ``loaders``), turns the volume
into a label map, which goes back on the slices of the source. Labels are measured (``measure``) and written
as DICOM SEG, SR and an overview picture (``results``), and the SEG is read back and compared before anybody
may send it (``results.verify``). ``pipeline`` runs these steps in order.

Nothing here opens a socket, a database or a clock; times and identities are arguments.
Importing ``ai`` does not import torch: only ``ai.loaders`` does, when a model is loaded.
"""
