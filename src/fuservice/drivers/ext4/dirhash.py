"""The hashes of names in hashed directories: legacy, half MD4, TEA, each with characters taken as signed or unsigned.

All give two numbers of 32 bits, the second for names whose first is equal. Source: the kernel's fs/ext4/hash.c as its
Documentation/filesystems/ext4/directory.rst tells it; debugfs' dx_hash computes the same.
"""

from __future__ import annotations

from struct import Struct

from fuservice.drivers.ext4.damage import damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, TypeAlias

    Four: TypeAlias = tuple[int, int, int, int]

LEGACY, HALF_MD4, TEA = 0, 1, 2  # s_def_hash_version, dx_root's hash_version
_ALL: Final = 0xFFFFFFFF
_LAST: Final = 0xFFFFFFFE  # says "no more", so no name may have it
_SEED: Final = Struct("<4I")
_MD4_START: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_TEA_DELTA: Final = 0x9E3779B9


def dirhash(name: bytes, version: int, seed: bytes, *, signed: bool) -> tuple[int, int]:
    """Return hash and minor hash of *name*; *seed* has 16 bytes, all zero for the built-in one. EIO: no such *version*."""
    characters = [byte - 256 if byte > 127 else byte for byte in name] if signed and not name.isascii() else list(name)
    if version == LEGACY:
        major, minor = _legacy(characters), 0
    elif version == HALF_MD4:
        _first, major, minor, _last = _chunks(characters, 8, seed, _half_md4)
    elif version == TEA:
        major, minor, _third, _last = _chunks(characters, 4, seed, _tea)
    else:
        raise damaged(f"a directory hash of unknown version {version}")
    major &= ~1
    return (_LAST - 2 if major == _LAST else major), minor


def _legacy(characters: list[int]) -> int:
    older, old = 0x37ABE8F9, 0x12A3FE2D
    for character in characters:
        new = older + (old ^ character * 7152373 & _ALL) & _ALL
        older, old = old, new - 0x7FFFFFFF if new >> 31 else new
    return old << 1 & _ALL


def _chunks(characters: list[int], words: int, seed: bytes, mix: Callable[[Four, list[int]], Four]) -> Four:
    """Return the state after all chunks of *words* words; the last one is filled with the length of what is left."""
    state = _SEED.unpack(seed) if any(seed) else _MD4_START
    for start in range(0, len(characters), 4 * words):
        state = mix(state, _packed(characters, start, words))
    return state


def _packed(characters: list[int], start: int, words: int) -> list[int]:
    padding = (len(characters) - start) * 0x01010101 & _ALL
    packed = []
    for at in range(start, min(len(characters), start + 4 * words), 4):
        word = padding
        for character in characters[at : at + 4]:
            word = (word << 8) + character
        packed.append(word & _ALL)
    return packed + [padding] * (words - len(packed))


def _tea(state: Four, words: list[int]) -> Four:
    first, second, *rest = state
    a, b, c, d = words
    x, y, total = first, second, 0
    for _ in range(16):
        total = total + _TEA_DELTA & _ALL
        x = x + ((y << 4) + a ^ y + total ^ (y >> 5) + b) & _ALL
        y = y + ((x << 4) + c ^ x + total ^ (x >> 5) + d) & _ALL
    return first + x & _ALL, second + y & _ALL, rest[0], rest[1]


#: The rounds of half MD4: what is added to each word, the order of the words, the rotations.
_ROUNDS: Final = (
    (0, (0, 1, 2, 3, 4, 5, 6, 7), (3, 7, 11, 19)),
    (0x5A827999, (1, 3, 5, 7, 0, 2, 4, 6), (3, 5, 9, 13)),
    (0x6ED9EBA1, (3, 7, 2, 6, 1, 5, 0, 4), (3, 9, 11, 15)),
)


def _half_md4(state: Four, words: list[int]) -> Four:
    a, b, c, d = state
    for number, (constant, order, turns) in enumerate(_ROUNDS):
        for step in range(8):
            mixed = d ^ (b & (c ^ d)) if number == 0 else (b & c) + ((b ^ c) & d) if number == 1 else b ^ c ^ d
            value, turn = a + mixed + words[order[step]] + constant & _ALL, turns[step & 3]
            a, b, c, d = d, (value << turn | value >> 32 - turn) & _ALL, b, c
    return state[0] + a & _ALL, state[1] + b & _ALL, state[2] + c & _ALL, state[3] + d & _ALL
