"""The smallest program that can say over the socket that it runs: 64-bit ELF, made here, so that no compiler is needed."""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

SOCKET: Final = 3
BASE: Final = 0x400000
SUCCEEDED: Final = b"succeeded"
REFUSED: Final = b"refused EPERM"
_HEADERS: Final = 64 + 56  # the ELF header and one program header, elf(5)

#: Machine (as uname(2) has it) → its number in ELF.
_MACHINES: Final[Mapping[str, int]] = {"x86_64": 62, "aarch64": 183}


def program(*, only_root: bool = False) -> bytes:
    """Return a program that writes SUCCEEDED to the socket, or REFUSED where *only_root* and it is not, and ends."""
    machine = os.uname().machine
    make = _x86_64 if machine == "x86_64" else _aarch64
    otherwise = REFUSED if only_root else SUCCEEDED
    size = len(make(0, 0, otherwise))
    code = make(size, size + len(SUCCEEDED), otherwise)
    body = code + SUCCEEDED + otherwise
    total = _HEADERS + len(body)
    identity = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 2, _MACHINES[machine], 1, BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, total, total, 0x1000)  # PT_LOAD, readable and executable
    return identity + header + segment + body


def _x86_64(yes: int, no: int, otherwise: bytes) -> bytes:
    """Return the code; *yes* and *no* are where, from its beginning, the two texts are."""

    def text(before: int, place: int, length: int) -> bytes:  # lea rsi, [rip + …]; mov edx, length: 12 bytes
        return b"\x48\x8d\x35" + struct.pack("<i", place - before - 7) + b"\xba" + struct.pack("<I", length)

    begin = b"\xb8" + struct.pack("<I", 107) + b"\x0f\x05"  # geteuid
    begin += text(len(begin), yes, len(SUCCEEDED)) + b"\x85\xc0\x74\x0c"  # test eax, eax; jz over the next text
    begin += text(len(begin), no, len(otherwise))
    write = b"\xb8" + struct.pack("<I", 1) + b"\xbf" + struct.pack("<I", SOCKET) + b"\x0f\x05"
    return begin + write + b"\xb8" + struct.pack("<I", 60) + b"\x31\xff\x0f\x05"  # exit(0)


def _aarch64(yes: int, no: int, otherwise: bytes) -> bytes:
    """The same for 64-bit ARM."""

    def move(register: int, value: int) -> int:  # movz
        return 0xD2800000 | value << 5 | register

    def place(at: int, target: int) -> int:  # adr x1, target
        offset = target - 4 * at
        return 0x10000000 | (offset & 3) << 29 | (offset >> 2 & 0x7FFFF) << 5 | 1

    call = 0xD4000001  # svc #0
    words = [move(8, 175), call, place(2, yes), move(2, len(SUCCEEDED)), 0x34000000 | 3 << 5]  # geteuid; cbz w0, +3
    words += [place(5, no), move(2, len(otherwise))]
    words += [move(0, SOCKET), move(8, 64), call, move(0, 0), move(8, 93), call]
    return struct.pack(f"<{len(words)}I", *words)
