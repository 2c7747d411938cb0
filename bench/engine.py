"""The FUSE engine against libfuse: memtree beside a C server (peer.c, low-level API) with the same tree in memory.

``PYTHONPATH=src python -m bench.engine`` (root, gcc, libfuse3-dev). Nothing is cached: timeouts are zero on both sides, data is
read with O_DIRECT.
"""

from __future__ import annotations

import sys

from bench.rounds import OPERATIONS, Peer, arguments, compare, compiled, enter_private_namespace, pkg_config, scratch


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    enter_private_namespace()
    with scratch() as directory:
        peer = compiled(directory, "peer.c", *pkg_config("fuse3"))
        peers = [
            Peer("fuservice", [sys.executable, "-m", "bench.serve", "MNT", "memtree"]),
            Peer("libfuse", [str(peer), "MNT"]),
        ]
        compare(peers, OPERATIONS, options, directory)


if __name__ == "__main__":
    main()
