"""CRC-16 (the polynomial x^16 + x^15 + x^2 + 1, reflected): the checksum of group descriptors before metadata_csum."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_REFLECTED: Final = 0xA001


def crc16(register: int, data: bytes) -> int:
    """Return the register, which was *register* (16 bits), after *data*; bit by bit, for it gets a few bytes per group."""
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (_REFLECTED if register & 1 else 0)
    return register
