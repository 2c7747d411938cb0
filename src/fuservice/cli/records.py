"""Reading what the helper wrote down (``helper.record``), and forgetting it."""

from __future__ import annotations

import os

from fuservice.helper.record import DIRECTORY
from fuservice.linux import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LARGEST: Final = 16_384  # bytes


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
                with open(f"{directory}/{name}", "rb") as file:  # noqa: PTH123
                    records[int(name)] = parse(file.read(LARGEST))
            except OSError:
                continue
    return records


def parse(text: bytes) -> dict[str, str]:
    """Return the facts in *text*, the content of one record; lines that are none are passed over."""
    facts: dict[str, str] = {}
    for line in text.split(b"\n"):
        name, tab, value = line.partition(b"\t")
        if tab:
            facts[os.fsdecode(name)] = os.fsdecode(mountinfo.unescape(value))
    return facts


def remove(unique_id: int, directory: str = DIRECTORY) -> None:
    """Forget one mount; harmless where nothing is known of it, or where we may not."""
    try:
        os.unlink(f"{directory}/{unique_id}")  # noqa: PTH108
    except OSError:
        return
