"""Delivery: the outbox of the journal to the destinations, with retries and without duplicates.

``storage_scu`` speaks DIMSE to one peer; ``send`` empties the outbox of one destination. A result
is sent byte for byte as it was stored, so sending it twice changes nothing at the destination.
"""
