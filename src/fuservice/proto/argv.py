"""The argv file ("fuse service argv"): how the helper tells the service what the caller typed.

Layout (docs/protocol.md, "argv"): magic "ARGS", be32 argc, then argc times {be32 position, be32 length with the NUL},
then the strings. The table has room for every word the caller typed, as in libfuse's file; readers take compact files too.
args[0] is the subtype, the ``-t TYPE`` pairs are gone.
"""

from __future__ import annotations

import struct

from fuservice.errors import RemoteProtocolError, UsageError
from fuservice.proto import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

LARGEST_FILE: Final = 1 << 20  # bytes
MOST_WORDS: Final = 1_024
_MAGIC: Final = layouts.magic("ARGS")
_HEADER: Final = struct.Struct(">II")
_WORD: Final = struct.Struct(">II")


def encode(words: Sequence[bytes], typed: int = 0) -> bytes:
    """Return the file that holds *words*; *typed* is the caller's original argc. UsageError where it would not fit."""
    if len(words) > MOST_WORDS:
        raise UsageError(f"{len(words)} arguments, at most {MOST_WORDS} can be passed to a service")
    position = _HEADER.size + _WORD.size * max(typed, len(words))
    table, strings = [], []
    start = position
    for word in words:
        table.append(_WORD.pack(position, len(word) + 1))
        strings.append(word + b"\0")
        position += len(word) + 1
    if position > LARGEST_FILE:
        raise UsageError(f"{position} bytes of arguments, at most {LARGEST_FILE} can be passed to a service")
    return (_HEADER.pack(_MAGIC, len(words)) + b"".join(table)).ljust(start, b"\0") + b"".join(strings)


def decode(file: bytes) -> list[bytes]:
    """Return the words in *file*; RemoteProtocolError unless every one lies inside it and ends with its NUL."""
    if len(file) > LARGEST_FILE:
        raise RemoteProtocolError(f"service args file has {len(file)} bytes, expected at most {LARGEST_FILE}")
    if len(file) < _HEADER.size:
        raise RemoteProtocolError(f"service args file has {len(file)} bytes, expected at least {_HEADER.size}")
    magic, argc = _HEADER.unpack_from(file)
    if magic != _MAGIC:
        raise RemoteProtocolError("service args file corrupt")
    if not 1 <= argc <= MOST_WORDS or _HEADER.size + argc * _WORD.size > len(file):
        raise RemoteProtocolError(f"service args file of {len(file)} bytes says argc {argc}, expected 1..{MOST_WORDS}")
    words = [_word(file, index, argc) for index in range(argc)]
    if (size := sum(map(len, words))) > len(file):
        raise RemoteProtocolError(f"service args file of {len(file)} bytes holds {size} bytes of words: they overlap")
    return words


def _word(file: bytes, index: int, argc: int) -> bytes:
    position, length = _WORD.unpack_from(file, _HEADER.size + index * _WORD.size)
    first = _HEADER.size + argc * _WORD.size
    if not (length >= 1 and first <= position <= len(file) and length <= len(file) - position):
        where = f"{length} bytes at {position}"
        raise RemoteProtocolError(f"service args file argv[{index}]: {where} are not in a file of {len(file)}")
    word = file[position : position + length]
    if word.find(b"\0") != length - 1:
        raise RemoteProtocolError(f"service args file argv[{index}]: expected one NUL, at byte {length - 1}")
    return word[:-1]
