"""All the benches, one after the other: ``make bench``, or ``python -m bench``. Each runs by itself too, with --help."""

from __future__ import annotations

import subprocess
import sys

TITLES = {
    "bench.start": "start of the mount helper",
    "bench.engine": "the FUSE engine (memtree) beside libfuse's low-level API, nothing cached",
    "bench.programs": "find, tar, grep: our ext4 beside fuse2fs and the kernel's own, with all that the kernel keeps",
    "bench.large": "a filesystem of 1 TiB",
    "bench.ext4": "our ext4 beside Debian's fuse2fs on one image, nothing cached",
}


def main() -> int:
    """Run them; return the first exit code that is not 0."""
    codes = []
    for module, title in TITLES.items():
        print(f"\n== {title}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", module, *sys.argv[1:]], check=False).returncode)
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
