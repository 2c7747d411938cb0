"""The fuse-service conversation without I/O: whole packets in, events out, and the reverse.

docs/protocol.md is the specification; its tables are printed from these modules.
"""
