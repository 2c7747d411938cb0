"""CRC-32C (Castagnoli) as ext4 takes it: the register goes in and comes out as it is, neither end is inverted.

A message is a polynomial over GF(2), and its checksum the remainder by P of it. The usual way goes byte by byte, which costs
Python half a millisecond for 4 KiB. Here one large integer holds the message, and what is long is folded: P divides

    x^266 + x^143 + x^121 + x^88 + x^71 + 1

and, as squaring is linear there, the same polynomial with all exponents doubled, any number of times. So high powers may be
exchanged for lower ones, hundreds of bytes at once, by shifts and XOR of integers; the last 33 bytes go through a table.
The order of bits is the reflected one: bit 0 of the first byte is the highest power.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_REFLECTED: Final = 0x82F63B78  # P without its x^32
#: A multiple of P with few powers, the highest first. Its second one is low, so much can be folded at a time.
MULTIPLE: Final = (266, 143, 121, 88, 71, 0)
_DOUBLINGS: Final = 12  # enough for a block of 64 KiB


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_REFLECTED if byte & 1 else 0)
    return byte


def _folds(doublings: int) -> list[tuple[int, int, tuple[int, ...]]]:
    """Return, longest first: bits that a fold leaves at least, bits that it can take away at most, how far it shifts them."""
    highest = MULTIPLE[0]
    shifts = [highest - power for power in MULTIPLE[1:]]
    return [(highest << n, shifts[0] << n, tuple(shift << n for shift in shifts)) for n in reversed(range(doublings))]


_TABLE: Final = [_entry(byte) for byte in range(256)]
_FOLDS: Final = _folds(_DOUBLINGS)


def crc32c(register: int, data: bytes | bytearray) -> int:
    """Return the register, which was *register* (32 bits), after *data*, at least 4 bytes."""
    bits = len(data) << 3
    message = int.from_bytes(data, "little") ^ register
    for least, most, shifts in _FOLDS:
        while bits - least >= 8:
            count = min(bits - least, most) & ~7
            highest = message & (1 << count) - 1
            message >>= count
            for shift in shifts:
                message ^= highest << shift - count
            bits -= count
    register = 0
    for byte in message.to_bytes(bits >> 3, "little"):
        register = _TABLE[(register ^ byte) & 0xFF] ^ register >> 8
    return register
