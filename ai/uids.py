"""Derived UIDs: the same parts always give the same UID."""

from __future__ import annotations

import uuid

NAMESPACE = uuid.UUID("7f2f7e0c-5f0e-5a3c-9d57-8f7a0f1c6b1e")


def derived_uid(*parts: str) -> str:
    """A UID that is the same whenever the parts are: ``2.25.`` + UUIDv5 (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, '|'.join(parts)).int}"
