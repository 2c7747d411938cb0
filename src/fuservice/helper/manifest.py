"""A driver's manifest: which words of the command line are files, and how they may be opened.

One line for each, read before anything is opened:

    source KIND ACCESS         the first of two positional words
    option NAME KIND ACCESS    the value of -o NAME=
    readonly                   the mount is read-only, whatever was typed

KIND is file, block, any (either) or loop (a block device, and where a regular file is named, a loop device over it); ACCESS is ro or rw. "#" begins a comment. Without a manifest the source may be
opened as ``any rw``, or ``any ro`` if the caller typed ro.
"""

from __future__ import annotations

import os

from fuservice.errors import PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Where manifests are: the administrator's, then the ones that come with the drivers.
DIRECTORIES: Final = ("/etc/fuservice/manifests", os.path.join(os.path.dirname(os.path.dirname(__file__)), "manifests"))  # noqa: PTH118, PTH120
LARGEST: Final = 4_096  # bytes
KINDS: Final = ("file", "block", "any", "loop")
SOURCE: Final = ""  # the key of the source among the options' names


class Rule:
    """How one file may be opened."""

    __slots__ = ("kind", "writable")

    def __init__(self, kind: str, *, writable: bool) -> None:
        self.kind, self.writable = kind, writable


class Manifest:
    """The rules of one driver, by option name (``SOURCE`` for the source)."""

    def __init__(self, rules: dict[str, Rule], *, read_only: bool = False) -> None:
        self.rules, self.read_only = rules, read_only


def parse(text: str, name: str) -> Manifest:
    """Return the manifest in *text*; PolicyError naming file *name* and the line where it is none."""
    rules: dict[str, Rule] = {}
    read_only = False
    for number, line in enumerate(text.splitlines(), 1):
        match line.partition("#")[0].split():
            case []:
                pass
            case ["readonly"]:
                read_only = True
            case ["source", kind, ("ro" | "rw") as access] if kind in KINDS:
                rules[SOURCE] = Rule(kind, writable=access == "rw")
            case ["option", option, kind, ("ro" | "rw") as access] if kind in KINDS:
                rules[option] = Rule(kind, writable=access == "rw")
            case _:
                raise PolicyError(
                    f"{name}:{number}: expected `source KIND ACCESS', `option NAME KIND ACCESS' or `readonly'"
                )
    return Manifest(rules, read_only=read_only)


def load(subtype: str) -> Manifest:
    """Return the manifest for *subtype* (a plain file name), the default one where there is none."""
    for directory in DIRECTORIES:
        path = f"{directory}/{subtype}"
        try:
            # Safe: a fixed directory that only root (or who installed us) writes, and a name without "/".
            with open(path, encoding="utf-8") as file:  # noqa: PTH123
                text = file.read(LARGEST + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(f"{path}: cannot be read: {error}") from None
        if len(text) > LARGEST:
            raise PolicyError(f"{path}: over {LARGEST} characters")
        return parse(text, path)
    return Manifest({SOURCE: Rule("any", writable=True)})
