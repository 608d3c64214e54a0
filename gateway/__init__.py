"""The gateway: a DICOM node that keeps what it acknowledged and sends back what it found.

Theory of operation
-------------------
::

     peer ──C-STORE──▶ receive ──▶ spool + journal ──▶ sweep (complete? geometry? route?) ──▶ job
                                                                                               │
     peer ◀──C-STORE── deliver ◀── outbox (journal) ◀── results (SEG, SR, overview) ◀──── worker (ai)

An instance is written to the spool, made durable and entered in the journal before the peer
reads 0000 (``receive.admit``). The sweeper watches series that are still receiving; when one is
complete by evidence it takes the geometry verdict, evaluates the routes and decides, all in one
transaction (``sweep``). The dispatcher leases queued jobs to the worker process and commits its
results together with the outbox rows (``jobs``). One sender per destination empties the outbox
(``deliver``).

Crash rules
-----------
The journal is the only truth. A file without a row is garbage, removed at start; a row without a
file is an alarm. At start, jobs that were running are queued again and deliveries that were
sending are pending again: both effects are idempotent, because result UIDs are derived from
their input and encoded results are stored before they are sent and re-sent byte for byte.
The process that serves never imports torch; a model can only kill the worker.
"""

__version__ = "0.1.0"
