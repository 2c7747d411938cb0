"""A Python that asks for no file any more.

In the cage there is none, and a filter ends a process that looks for one. So what Python would load at first use is loaded
here, before the first server is started, and what it would open afterwards it is told not to: an import that comes too
late is an ImportError, and a traceback has no lines of source.
"""

from __future__ import annotations

import codecs
import importlib.machinery
import linecache
import os
import sys
import time
import traceback  # noqa: F401  # not for us: for those who will want it
from contextlib import suppress

from fuservice.cage.operations import Operation
from fuservice.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Codecs that Python looks up among its files when one is first asked for.
CODECS: Final = (
    "ascii", "cp437", "latin-1", "raw_unicode_escape", "unicode_escape", "utf-8", "utf-16", "utf-16-le", "utf-16-be",
    "utf-32", "utf-32-le", "utf-32-be",
)  # fmt: skip

for _name in CODECS:
    codecs.lookup(_name)


class SealInterpreter(Operation):
    """No wall: it keeps an honest server from running into one."""

    __slots__ = ()

    def describe(self) -> str:
        return "Python looks for no file any more: no late import, no source in tracebacks, local time is UTC"

    def execute(self) -> None:
        sys.meta_path[:] = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter]
        sys.path.clear()
        os.environ["TZ"] = "UTC0"  # local time would be in a file
        time.tzset()
        linecache.updatecache = _no_lines  # type: ignore[assignment]  # the parameters' names are nobody's concern
        linecache.checkcache = _nothing_changes  # type: ignore[assignment]
        sys.unraisablehook = _unraisable


def _no_lines(_filename: str, _module_globals: dict[str, object] | None = None) -> list[str]:
    return []


def _nothing_changes(_filename: str | None = None) -> None:
    """Leave the cache as it is."""


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Say it in a line: the default looks for the source, from C."""
    with suppress(OSError):
        os.write(2, f"{printable(repr(unraisable.exc_value))} in {printable(repr(unraisable.object))}\n".encode())
