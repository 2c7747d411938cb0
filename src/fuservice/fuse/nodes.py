"""Which nodes the kernel knows, how often it was told, and by which name: the counts of LOOKUP and FORGET.

A node counts when the reply that hands it out is made; if that could not be delivered, the session takes the count back,
for no FORGET will ever come for it. The names serve error messages alone: a node with several names is remembered by the latest;
its depth below the root is that of the first.
"""

from __future__ import annotations

from fuservice.fuse.abi import ROOT_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fuservice.fuse.budget import Budgets

DEEPEST = 64  # names of a path that are shown: a hostile image may make a node its own ancestor


class Nodes:
    """The kernel's references. The root is always known and never counted.

    ``handles`` is how many files and directories it has open; ``listed`` says for the latest places where a listing will be
    resumed, a directory and a cookie, how many entries lie before.
    """

    __slots__ = ("_depth", "_known", "_most", "handles", "listed")

    def __init__(self, budgets: Budgets) -> None:
        self._known: dict[int, tuple[int, int, bytes, int]] = {}  # node → references, parent, name, depth
        self._depth, self._most = budgets.depth, budgets.nodes
        self.handles = 0
        self.listed: dict[tuple[int, int], int] = {}

    def __contains__(self, node: int) -> bool:
        return node == ROOT_ID or node in self._known

    def __len__(self) -> int:
        return len(self._known)

    def give(self, node: int, parent: int, name: bytes) -> None:
        """A reply hands out *node* as *name* of *parent*: one more reference. BudgetError if a new node is too much or too deep."""
        known = self._known.get(node)
        if known is not None:
            self._known[node] = (known[0] + 1, parent, name, known[3])
            return
        above = self._known.get(parent)
        depth = above[3] + 1 if above else 1
        if depth > self._depth.peak:
            self._depth.need(depth)
        if len(self._known) >= self._most.peak:
            self._most.need(len(self._known) + 1)
        self._known[node] = (1, parent, name, depth)

    def forget(self, node: int, count: int) -> bool:
        """Take *count* references back; return whether those were the last ones."""
        known = self._known.get(node)
        if known is None:
            return False
        if known[0] > count:
            self._known[node] = (known[0] - count, known[1], known[2], known[3])
            return False
        del self._known[node]
        return True

    def path(self, node: int, name: bytes = b"") -> bytes:
        """Return the path of *node*, or of *name* in it; "…" stands for what is not known any more."""
        parts = [name] if name else []
        while node != ROOT_ID and len(parts) < DEEPEST and node in self._known:
            _, node, name, _ = self._known[node]
            parts.append(name)
        return (b"" if node == ROOT_ID else "…".encode()) + b"/" + b"/".join(reversed(parts))
