"""fuservice: mount filesystems that you do not trust.

The filesystem's bytes are parsed by a FUSE server that can do nothing else (``service``, ``fuse``, ``drivers``);
a small helper with the caller's rights opens what was granted, mounts, and goes (``helper``). The two meet on the
"fuse service" wire (``proto``). docs/design.md has the map.
"""

__version__ = "0.1.0.dev0"
