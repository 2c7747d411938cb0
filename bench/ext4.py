"""Our ext4 beside Debian's fuse2fs, on one image.

``PYTHONPATH=src python -m bench.ext4`` (root, gcc, e2fsprogs, fuse2fs). The kernel caches nothing: timeouts are zero on both
sides, data is read with O_DIRECT. The image itself is in the page cache, for both.
"""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING

from bench.rounds import OPERATIONS, Peer, arguments, compare, enter_private_namespace, scratch
from bench.serve import BIG, FILES, SMALL

if TYPE_CHECKING:
    from pathlib import Path


def make_image(directory: Path) -> Path:
    """Make an ext4 image with the tree of the benches, by mkfs.ext4 as it comes."""
    tree = directory / "tree"
    (tree / "small").mkdir(parents=True)
    pseudo = random.Random(1)
    for i in range(FILES):
        (tree / "small" / f"f{i:04}").write_bytes(pseudo.randbytes(SMALL))
    with (tree / "big").open("wb") as big:
        for _ in range(BIG >> 20):
            big.write(pseudo.randbytes(1 << 20))
    image = directory / "image"
    size = f"{(BIG >> 20) * 5 // 4 + 64}M"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, image, size], check=True, stdout=subprocess.DEVNULL)
    for path in [*(tree / "small").iterdir(), tree / "big"]:
        path.unlink()
    (tree / "small").rmdir()
    return image


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    enter_private_namespace()
    with scratch() as directory:
        image = make_image(directory)
        uncached = "ro,entry_timeout=0,attr_timeout=0,negative_timeout=0"
        peers = [
            Peer("fuservice", [sys.executable, "-m", "bench.serve", "MNT", "ext4", str(image)]),
            Peer("fuse2fs", ["fuse2fs", str(image), "MNT", "-f", "-s", "-o", uncached]),
        ]
        compare(peers, OPERATIONS, options, directory)


if __name__ == "__main__":
    main()
