"""Storage commitment as SCP (PS3.4 annex J): requests, what is true of them, and the reports."""
