"""Directives and the file that they make: systemd.syntax(7)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Directive:
    """One line, and the sentence above it that says why. Versions of systemd before *since* do not know it."""

    __slots__ = ("name", "since", "value", "why")

    def __init__(self, why: str, name: str, value: str | int, since: int = 0) -> None:
        self.why, self.name, self.value, self.since = why, name, str(value), since


def unit(sections: Mapping[str, Iterable[Directive]], title: str, version: int) -> str:
    """Return the unit file for systemd *version*; its first line says *title*."""
    parts = [f"# {title}\n"]
    for section, directives in sections.items():
        parts += [f"\n[{section}]\n", *_lines(directives, version)]
    return "".join(parts)


def _lines(directives: Iterable[Directive], version: int) -> Iterable[str]:
    for one in directives:
        if version >= one.since:
            yield f"# {one.why}\n" if one.why else ""
            yield f"{one.name}={one.value}\n"
