"""Receive: a DICOM peer's bytes become durable instances.

``storage_scp`` speaks DIMSE, ``admit`` decides and makes durable, ``tags`` reads what the gateway
must know of a data set, within bounds. Pixels are not decoded here.
"""
