"""Receive: a DICOM peer's bytes become durable instances.

``storage_scp`` speaks DIMSE and ``stow`` HTTP; both bring what comes to ``admit``, which decides and makes
durable. ``gate`` decides who may open an association, ``transport`` accepts connections, ``association`` is
what one of them does; ``tls`` and ``commitment`` are services of their own. ``tags`` reads what the gateway
must know of a data set, within bounds. Pixels are not decoded here.
"""
