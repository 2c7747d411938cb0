"""Names in directories that do not tell upper from lower case: two that fold to the same bytes are the same name.

As the kernel compares: canonical decomposition, full case folding, without the characters that nobody sees; a name that is no
UTF-8, or has a character that Unicode does not know, is only ever itself. The kernel's tables are those of Unicode 12.1, here
they are Python's: they differ in characters that came later.
"""

from __future__ import annotations

from unicodedata import category, normalize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: The characters with the property Default_Ignorable_Code_Point, without those that Unicode has only reserved for it.
_UNSEEN: Final = dict.fromkeys(
    at
    for first, last in (
        (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180E), (0x200B, 0x200F),
        (0x202A, 0x202E), (0x2060, 0x2064), (0x2066, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0),
        (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0001, 0xE0001), (0xE0020, 0xE007F), (0xE0100, 0xE01EF),
    )
    for at in range(first, last + 1)
)  # fmt: skip


def fold(name: bytes) -> bytes:
    """Return what all names have in common that count as *name*."""
    if name.isascii():
        return name.lower()
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return name
    if any(category(character) == "Cn" for character in text):
        return name
    return normalize("NFD", normalize("NFD", text).casefold()).translate(_UNSEEN).encode()
