"""Jobs: claimed from the journal, run by the worker process, committed with their outbox rows.

``dispatch`` runs in the gateway and owns the leases; ``executor`` owns the worker processes;
``messages`` is what both sides say to each other; ``run`` is the worker's side, and with
:mod:`gateway.modelhost` the only one that imports ``ai`` in full.
"""
