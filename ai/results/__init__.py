"""Label maps as DICOM objects: SEG, SR and an overview picture, and the check that they are right."""
