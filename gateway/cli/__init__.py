"""The command ``aigw``: one small file per noun. Results on stdout, logs and problems on stderr."""
