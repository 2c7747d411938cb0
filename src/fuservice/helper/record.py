"""/run/fuservice/mounts: what we know of the mounts that we made, for ``fuservice list``. One file a mount, named by its unique id.

Only root's mounts are recorded. A record says what was, not what is: readers compare it with the kernel's own list, so a
record that outlives its mount (a crash, a plain umount(8)) is harmless.
"""

from __future__ import annotations

import os

from fuservice.linux import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

DIRECTORY: Final = "/run/fuservice/mounts"
LARGEST: Final = 16_384  # bytes


def write(mount: int, facts: Mapping[str, str], directory: str = DIRECTORY) -> None:
    """Record *facts* (name → one line) about the mount that descriptor *mount* stands for. Failure is ignored: it is mounted."""
    text = "".join(f"{name}\t{value.encode('unicode_escape').decode()}\n" for name, value in facts.items())
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)  # noqa: PTH103
        path = f"{directory}/{mountinfo.unique_id(mount)}"
        # Safe: /run is root's, and so is all below it; O_EXCL, so nothing that is there is written to.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError:
        return
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read(directory: str = DIRECTORY) -> dict[int, dict[str, str]]:
    """Return the records by unique mount id; files that are none are passed over."""
    records: dict[int, dict[str, str]] = {}
    try:
        names = os.listdir(directory)
    except OSError:
        return records
    for name in names:
        if name.isascii() and name.isdigit() and len(name) < 20:
            try:
                with open(f"{directory}/{name}", encoding="utf-8") as file:  # noqa: PTH123
                    records[int(name)] = parse(file.read(LARGEST))
            except (OSError, UnicodeDecodeError):
                continue
    return records


def parse(text: str) -> dict[str, str]:
    """Return the facts in *text*, the content of one record."""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, tab, value = line.partition("\t")
        if tab:
            facts[name] = value.encode("latin-1", "backslashreplace").decode("unicode_escape", "replace")
    return facts


def remove(unique_id: int, directory: str = DIRECTORY) -> None:
    """Forget one mount; harmless where nothing is known of it, or where we may not."""
    try:
        os.unlink(f"{directory}/{unique_id}")  # noqa: PTH108
    except OSError:
        return
