"""One association: pynetdicom's state machine and negotiation, with our own input, timers and limits."""
