"""Which nodes the kernel knows, how often it was told, and by which name: the counts of LOOKUP and FORGET.

A node counts when the reply that hands it out is made; if that could not be delivered, the session takes the count back,
for no FORGET will ever come for it. The names serve error messages alone: a node with several names is remembered by the latest.
"""

from __future__ import annotations

from fuservice.fuse.abi import ROOT_ID

DEEPEST = 64  # names of a path that are shown: a hostile image may make a node its own ancestor


class Nodes:
    """The kernel's references. The root is always known and never counted."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int, bytes]] = {}  # node → references, parent, name

    def __contains__(self, node: int) -> bool:
        return node == ROOT_ID or node in self._known

    def __len__(self) -> int:
        return len(self._known)

    def give(self, node: int, parent: int, name: bytes) -> None:
        """A reply hands out *node* as *name* of *parent*: one more reference."""
        known = self._known.get(node)
        self._known[node] = (known[0] + 1 if known else 1, parent, name)

    def forget(self, node: int, count: int) -> bool:
        """Take *count* references back; return whether those were the last ones."""
        known = self._known.get(node)
        if known is None:
            return False
        if known[0] > count:
            self._known[node] = (known[0] - count, known[1], known[2])
            return False
        del self._known[node]
        return True

    def path(self, node: int, name: bytes = b"") -> bytes:
        """Return the path of *node*, or of *name* in it; "…" stands for what is not known any more."""
        parts = [name] if name else []
        while node != ROOT_ID and len(parts) < DEEPEST and node in self._known:
            _, node, name = self._known[node]
            parts.append(name)
        return (b"" if node == ROOT_ID else "…".encode()) + b"/" + b"/".join(reversed(parts))
