"""ext2, ext3 and ext4, read by our own bounded reader: the service around ``filesystem.Ext4Filesystem``."""

from __future__ import annotations

from fuservice.drivers.ext4.filesystem import Ext4Filesystem
from fuservice.errors import UsageError
from fuservice.fuse.filesystem import FOREVER
from fuservice.service import Driver, ImageArgument, service_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from fuservice.fuse.filesystem import Filesystem
    from fuservice.service import Fd

LARGEST_OFFSET = 1 << 62  # bytes


class Ext4(Driver):
    """The service for all three types: one on-disk format, told apart by its features."""

    name = "ext4"
    restartable = True
    image = ImageArgument(is_source=True)
    syscalls = ("preadv", "preadv2", "lseek")  # lseek(2) for the size of a device; Python says preadv2(2)
    threads = 8  # seven reads may wait for the disk while others are served; one thread looks after them
    # The first look-up reads a directory of up to 64 MiB, block by block: minutes on a slow disk. Each step is bounded besides.
    limits = {"time": 120_000}  # noqa: RUF012  # the base class says ClassVar
    options = {  # noqa: RUF012  # the base class says ClassVar
        "bsddf": "statfs leaves out the filesystem's own structures: as it does anyway",
        "errors": "no effect: nothing is written, whatever is wrong",
        "minixdf": "statfs counts the filesystem's own structures, too",
        "offset": "byte of the image where the filesystem begins",
        "nocheck": "do not verify the checksums of metadata",
        "noload": "do not replay the journal: what is done anyway",
        "recover": "show the filesystem as a replay of its journal would leave it; nothing is written",
        "sb": "where another copy of the superblock is, in units of 1024 bytes",
        "timeout": "seconds for which the kernel may keep names and attributes (default: for ever)",
    }

    def load(self, image: Fd | None, options: Mapping[str, str | None]) -> Filesystem:
        """Open the filesystem; ImageError where it cannot be served."""
        assert image is not None
        filesystem = Ext4Filesystem(
            image.fileno(),
            offset=number(options, "offset", 0, LARGEST_OFFSET),
            timeout_ns=number(options, "timeout", FOREVER // 10**9, FOREVER // 10**9) * 10**9,
            check="nocheck" not in options,
            recover="recover" in options,
            position=number(options, "sb", 1, LARGEST_OFFSET >> 10) << 10,
            minixdf="minixdf" in options,
        )
        if "errors" in options:
            self.log(
                f"errors={options['errors']} has no effect: nothing is written, what is damaged is EIO, the rest is served"
            )
        volume = filesystem.volume
        for warning in [*volume.warnings, *volume.complaints]:
            self.log(warning)
        volume.metadata.tell = self.log
        return filesystem


def number(options: Mapping[str, str | None], name: str, default: int, most: int) -> int:
    """Return option *name* as a number from 0 to *most*; UsageError where it is something else."""
    if name not in options:
        return default
    text = options[name] or ""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise UsageError(f"option {name}={text}: expected a number, 0 to {most}")
    return int(text)


def main() -> int:
    """Be the service; the entry point of fuservice-ext4."""
    return service_main(Ext4)
