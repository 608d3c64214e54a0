"""The imaging library: DICOM series in, label maps and DICOM results out.

Theory of operation
-------------------
Headers of a series become a :class:`ai.geometry.VolumeGeometry` or a named reason why they are
no volume (``geometry``). Accepted series become a :class:`ai.volume.Volume`: one array
``(slices, rows, columns)`` in modality units and one affine to LPS millimetres (``volume``).
A model, described by its card (``model``, ``loaders``), turns the volume into a label map on the
same grid. Labels are measured (``measure``) and written as DICOM SEG, SR and an overview picture
(``results``), and the SEG is read back and compared before anybody may send it
(``results.verify``). ``pipeline`` runs these steps in order.

Nothing here opens a socket, a database or a clock; times and identities are arguments.
Importing ``ai`` does not import torch: only ``ai.loaders`` does, when a model is loaded.
"""
