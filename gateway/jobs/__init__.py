"""Jobs: claimed from the journal, run by the worker process, committed with their outbox rows.

``dispatch`` runs in the gateway and owns the leases; ``executor`` owns the worker process;
``messages`` is what the two processes say to each other; ``run`` is the worker's side, and the
only module that imports ``ai`` in full.
"""
