"""STOW-RS (PS3.18 10.5), without the HTTP framework: instances come in as by C-STORE."""
