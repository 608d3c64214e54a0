"""DICOM over TLS (PS3.15 B.12): contexts, certificates, and why a handshake failed."""
