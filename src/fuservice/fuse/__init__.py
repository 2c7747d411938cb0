"""The FUSE kernel protocol in pure Python: layouts and codec without I/O, then the session loop on an open fd."""
