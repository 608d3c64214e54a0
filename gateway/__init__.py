"""The gateway: a DICOM node that keeps what it acknowledged and sends back what it found.

Theory of operation
-------------------
::

     peer ──C-STORE──▶ receive ──▶ spool + journal ──▶ sweep (complete? geometry? route?) ──▶ job
                                                                                               │
     peer ◀──C-STORE── deliver ◀── outbox (journal) ◀── results (SEG, SR, overview) ◀──── worker (ai)

An instance is written to the spool, made durable and entered in the journal before the peer
reads 0000 (``receive.admit``). The sweeper watches series that are still receiving; when one is
complete by evidence it takes the geometry verdict on each part (a series may hold several volumes:
phases, echoes, orientations), evaluates the routes for it and decides, all in one transaction
(``sweep``); each part that a route wants has a job of its own. The dispatcher leases queued jobs, the most
urgent first, to a worker process for each device and commits its results together with the outbox rows
(``jobs``). The worker reads and writes; the models live in a process of its own that has no network and
writes to no file (``modelhost``). Each destination gets the results as its profile wants them; what it may
not have yet (a quality hold) waits for a person, whose decisions come in at ``control``. A job that failed
for good may be followed by one that reports it. One sender per destination empties the outbox (``deliver``).

Crash rules
-----------
The journal is the only truth. A file without a row is put aside when it is older than an hour, for its
row may have been lost; a row without a file is an alarm. At start, jobs that were running are queued
again and deliveries that were sending are pending again: both effects are idempotent, because result
UIDs are derived from their input and encoded results are stored before they are sent and re-sent byte
for byte. The process that serves never imports torch; a decoder can only kill the worker, a model only
the model process. A series that kills either is given up after some attempts; a model that does so on
one series after another is switched off, and its jobs wait until it changes.

Late instances open a new revision of their series. While it is received, jobs and unsent results of
the older one wait; when it is decided, it adopts the jobs of parts whose images are still the same,
with their results and deliveries, and the others are superseded by name. A revision may lack a part that a
still later one has again: its results are then taken up once more.
"""

__version__ = "0.1.0"
