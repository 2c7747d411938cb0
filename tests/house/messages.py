"""Every sentence with which a program of ours ends, and its exit code: read from the source, so that nothing is forgotten.

``python -m tests.house.messages >docs/messages.md`` writes the list that people read; a test compares the two.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from typing import NamedTuple

from fuservice import errors
from fuservice.drivers.kinds import FILESYSTEMS, KINDS, sentence
from tests.house.source import Function, Module, functions, modules

#: Rooms whose failures end a command; those of a conversation reach the user by way of the helper.
ROOMS = ("cli", "backends", "broker", "drivers", "helper", "launch", "proto.options", "service.commandline", "units")
#: Not listed: failures that are bugs, and classes that only carry what another has said.
CARRIERS = {"HolderError"}

HEAD = """# What is said when it cannot be done

Each program ends with one line on standard error, `PROGRAM: SENTENCE`, and with the exit code that stands before it here. What stands in
braces is the user's word, or the kernel's. The list is made from the source: `python -m tests.house.messages >docs/messages.md`.

Besides: words that a command does not know, or misses, are 64 with its usage, as argparse says it; Ctrl-C is 130; a failure that nobody
foresaw shows a traceback, and is a bug. 0 is success, with nothing on standard error but what was asked for.
"""


class Message(NamedTuple):
    """One sentence."""

    module: str
    code: int
    text: str


def failures() -> dict[str, int]:
    """Return the name of every class of failures that a user can meet, with its exit code."""
    names: dict[str, int] = {}
    for module in modules("src"):
        if any(isinstance(node, ast.ClassDef) and node.name.endswith("Error") for node in module.tree.body):
            found = vars(importlib.import_module(module.name)).values()
            names |= {
                kind.__name__: kind.exit_code for kind in found
                if inspect.isclass(kind) and issubclass(kind, errors.FuserviceError)
            }  # fmt: skip
    return names


def collect() -> list[Message]:
    """Return all sentences, by module and in the order in which they stand there."""
    kinds = {name: code for name, code in failures().items() if name not in CARRIERS}
    found: dict[Message, None] = {}
    for module in modules("src"):
        name = module.name.removeprefix("fuservice.")
        if name.startswith(ROOMS):
            found |= dict.fromkeys(message for message in _messages(module, name, kinds) if message.text != "{…}")
    return [*found, *_of_images()]


def _of_images() -> Iterator[Message]:
    """Yield what is said of an image that nobody serves, which is a table of its own."""
    for word in KINDS:
        code = errors.EXIT_NO_SERVICE if word in FILESYSTEMS else errors.EXIT_FAILURE
        yield Message("drivers.kinds", code, sentence(word, "{source}"))


def _messages(module: Module, name: str, kinds: dict[str, int]) -> Iterator[Message]:
    for place in [module.tree, *functions(module.tree)]:
        for node in _own(place):
            if isinstance(node, ast.Call):
                for kind, method in _classes(node.func):
                    for text in _sentences(node, place, method) if kind in kinds else ():
                        yield Message(name, kinds[kind], text)


def _classes(function: ast.expr) -> Iterator[tuple[str, str | None]]:
    """Yield the names of the classes that a call may make something of, and by which other way than their name."""
    if isinstance(function, ast.IfExp):
        yield from _classes(function.body)
        yield from _classes(function.orelse)
        return
    owner, _, last = ast.unparse(function).rpartition(".")
    yield (owner.rpartition(".")[2], "of") if last == "of" else (last, None)


def _own(place: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of *place* without those of functions in it."""
    for node in ast.iter_child_nodes(place):
        if not isinstance(node, Function):
            yield node
            yield from _own(node)


def _sentences(call: ast.Call, place: ast.AST, method: str | None) -> Iterator[str]:
    """Yield what a failure's first word, or the second one of a refusal, may be."""
    words = [word for word in call.args if not _is_errno(word)]
    if words:
        for text in _texts(words[0], place):
            yield f"{text}: {{why}}" if method == "of" else text


def _is_errno(node: ast.expr) -> bool:
    return ast.unparse(node).startswith("errno.") or ast.unparse(node) in ("number", "error.errno", "refusal.errno")


def _texts(node: ast.expr, place: ast.AST, depth: int = 0) -> list[str]:
    """Return the texts that the expression *node* may be, with braces around what is not known here."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(_part(part) for part in parts)]
        case ast.IfExp(body=one, orelse=other):
            return [*_texts(one, place, depth), *_texts(other, place, depth)]
        case ast.Name(id=name) if depth < 3:
            known = [
                text for other in _own(place) if isinstance(other, ast.Assign) and _assigns(other, name)
                for text in _texts(other.value, place, depth + 1)
            ]  # fmt: skip
            return list(dict.fromkeys(known)) or [f"{{{name}}}"]
    return [f"{{{_name(node)}}}"]


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def _part(node: ast.expr) -> str:
    return (
        str(node.value)
        if isinstance(node, ast.Constant)
        else f"{{{_name(node.value if isinstance(node, ast.FormattedValue) else node)}}}"
    )


def _name(node: ast.expr) -> str:
    """Return one word for the value of *node*."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return {"strerror": "why", "error": "why"}.get(name, name)
        case ast.Call(func=ast.Name(id="str" | "printable" | "shortened" | "len"), args=[first, *_]):
            return _name(first)
        case ast.Call(func=ast.Attribute(attr="join")):
            return "…, …"
    return "…"


def page() -> str:
    """Return the page that people read."""
    lines = [HEAD]
    before = ""
    for message in collect():
        if message.module != before:
            lines += ["", f"## {message.module}", ""]
            before = message.module
        text = message.text.replace("\n", " ").replace("`", "'")
        lines.append(f"- {message.code}: `{text}`")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
