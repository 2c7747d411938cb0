"""Which nodes the kernel knows, how often it was told, and by which name: the counts of LOOKUP and FORGET.

A reply that hands out a node counts once it was delivered, not before: had its write failed, no FORGET would ever come
for it. The names serve error messages alone: a node with several names is remembered by the latest.
"""

from __future__ import annotations

from fuservice.fuse.abi import ROOT_ID

DEEPEST = 64  # names of a path that are shown: a hostile image may make a node its own ancestor


class Nodes:
    """The kernel's references. The root is always known and never counted."""

    __slots__ = ("_counts", "_names")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._names: dict[int, tuple[int, bytes]] = {}

    def __contains__(self, node: int) -> bool:
        return node == ROOT_ID or node in self._counts

    def __len__(self) -> int:
        return len(self._counts)

    def given(self, node: int, parent: int, name: bytes) -> None:
        """A reply delivered *node* as *name* of *parent*: one more reference."""
        self._counts[node] = self._counts.get(node, 0) + 1
        self._names[node] = (parent, name)

    def forget(self, node: int, count: int) -> bool:
        """Take *count* references back; return whether that were the last ones."""
        left = self._counts.get(node, 0) - count
        if left > 0 or node not in self._counts:
            self._counts.update({node: left} if left > 0 else {})
            return False
        del self._counts[node], self._names[node]
        return True

    def path(self, node: int, name: bytes = b"") -> bytes:
        """Return the path of *node*, or of *name* in it; "…" stands for what is not known any more."""
        parts = [name] if name else []
        while node != ROOT_ID and len(parts) < DEEPEST and node in self._names:
            node, name = self._names[node]
            parts.append(name)
        return (b"" if node == ROOT_ID else "…".encode()) + b"/" + b"/".join(reversed(parts))
