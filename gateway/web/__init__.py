"""The web face: health and metrics now; no patient attribute and no UID in either."""
