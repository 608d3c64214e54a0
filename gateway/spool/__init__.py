"""The spool: files that are durable under a name made from their own digest.

``objects/<2 hex>/<sha256>.dcm`` holds complete files, ``incoming/`` files that are being written,
``quarantine/`` files that were found damaged, and ``unclaimed/`` files that the journal does not know. A file
appears under its name only after its bytes are on the disk; :meth:`Spool.store` returns only after the name
is on the disk too (write → fsync → rename → fsync of the directory). Names are made from digests, never from
received text.

The same class keeps received instances and results.
"""

from gateway.spool.disk import Bytes
from gateway.spool.incoming import Incoming, StoredFile
from gateway.spool.intact import Found, damage
from gateway.spool.layout import relative_path
from gateway.spool.seal import SEAL_BYTES, sealed
from gateway.spool.spool import Spool
from gateway.spool.syntax import transfer_syntax_uid

__all__ = [
    "SEAL_BYTES",
    "Bytes",
    "Found",
    "Incoming",
    "Spool",
    "StoredFile",
    "damage",
    "relative_path",
    "sealed",
    "transfer_syntax_uid",
]
