"""A service without a file: what a template unit says, as properties for systemd-run(1). Walls and budgets are the same."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Final

    from fuservice.units.text import Directive

#: What systemd takes in a file and not in a message (257 neither), and what says the same there. It comes last: the first of
#: several filters says what the others are added to or taken from.
SPELLED: Final = {"RestrictAddressFamilies=none": "SystemCallFilter=~socket"}


def unit_name(name: str, token: str) -> str:
    """Return the name of a transient unit of type *name*; *token* is in no other's. Drop-ins: fuservice-TYPE-.service.d."""
    return f"fuservice-{name}-{token}.service"


def properties(sections: Mapping[str, Iterable[Directive]], instance: str, version: int) -> list[str]:
    """Return the *sections* of a template unit for an *instance*, as words for systemd-run(1) of systemd *version*."""
    words = sorted(_words(sections, version), key=SPELLED.__contains__)  # whose order is kept otherwise
    return [f"--property={SPELLED.get(word, word).replace('%i', instance)}" for word in words]


def command(sections: Mapping[str, Iterable[Directive]], instance: str) -> list[str]:
    """Return the words of the command that such a unit runs."""
    (line,) = (one.value for directives in sections.values() for one in directives if one.name == "ExecStart")
    return line.replace("%i", instance).split()


def _words(sections: Mapping[str, Iterable[Directive]], version: int) -> Iterator[str]:
    for directives in sections.values():
        for one in directives:
            if version >= one.since and one.name not in ("ExecStart", "OnFailure"):  # it brings no unit beside itself
                yield f"{one.name}={one.value}"
