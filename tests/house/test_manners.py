"""Manners of the source: who prints and exits, who says Any, what has a docstring, where exit codes come from."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator

import pytest

from tests.house.source import Function, Module, functions, imports, modules, none

SOURCES = modules("src")

#: Module → why it may print, or end the process, itself. Everybody else raises, and cli finds the words.
MAY_PRINT: dict[str, str] = {}
MAY_EXIT: dict[str, str] = {
    "fuservice.backends.program": "a forked child may not run what its parent has left to run: it ends by _exit or exec",
    "fuservice.backends.holder": "the same",
    "fuservice.backends.namespace": "the same",
    "fuservice.launch.child": "the same",
    "fuservice.broker.daemon": "the same",
    "fuservice.launch.dead": "the same",
    "fuservice.launch.direct": "the same",
    "fuservice.launch.guard": "the same",
    "fuservice.launch.tidier": "the same",
    "fuservice.prove.supervised": "the same",
}

PRINTS = {"print", "sys.stdout.write", "sys.stderr.write", "sys.stdout.flush", "sys.stderr.flush"}
EXITS = {"sys.exit", "os._exit", "exit", "quit", "SystemExit", "os.abort", "_exit"}

#: Whoever removes a tree must be sure that no mount is in it. Tests and demo never are.
REMOVERS = {"rmtree", "TemporaryDirectory", "removedirs"}


def calls(module: Module) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call in *module* with the dotted name of what is called."""
    yield from ((ast.unparse(n.func), n) for n in ast.walk(module.tree) if isinstance(n, ast.Call))


def offences(module: Module, forbidden: set[str]) -> list[str]:
    """Return the places where *module* names what is *forbidden*: called, raised, or handed on."""
    named = [n for n in ast.walk(module.tree) if isinstance(n, ast.Name | ast.Attribute)]
    return [f"{module.where}:{n.lineno}: {ast.unparse(n)}" for n in named if ast.unparse(n) in forbidden]


@pytest.mark.parametrize(
    ("what", "forbidden", "exceptions"),
    [("prints", PRINTS, MAY_PRINT), ("exits", EXITS, MAY_EXIT)],
    ids=["print", "exit"],
)
def test_only_cli_prints_and_exits(what: str, forbidden: set[str], exceptions: dict[str, str]) -> None:
    found = {m.name: places for m in SOURCES if m.room != "cli" and (places := offences(m, forbidden))}
    strangers = [place for name, places in found.items() if name not in exceptions for place in places]
    none(strangers, f"only cli {what}")
    assert set(exceptions) <= set(found), "an exception outlived its reason"


def test_exit_codes_come_from_errors() -> None:
    wrong = []
    for module in SOURCES:
        if module.room == "errors":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = {ast.unparse(t).rpartition(".")[2] for t in targets}
                if any(n == "exit_code" or n.startswith("EXIT_") for n in names) and _is_number(node.value):
                    wrong.append(f"{module.where}:{node.lineno}: {ast.unparse(node)}")
        wrong += [f"{module.where}:{n.lineno}: {name}" for name, n in calls(module) if name in EXITS and _numbers(n)]
        if module.room == "cli":
            wrong += list(_literal_returns(module))
    none(wrong, "an exit code has a name in errors.py")


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _numbers(call: ast.Call) -> bool:
    return any(_is_number(argument) for argument in call.args)


def _literal_returns(module: Module) -> Iterator[str]:
    for function in functions(module.tree):
        if function.returns is not None and ast.unparse(function.returns) == "int":
            for node in ast.walk(function):
                if isinstance(node, ast.Return) and node.value is not None and _is_number(node.value):
                    yield f"{module.where}:{node.lineno}: {ast.unparse(node)}"


def test_any_stays_in_linux() -> None:
    elsewhere = [(m, n) for m in modules() if m.room != "linux" for n in ast.walk(m.tree)]
    none((f"{m.where}:{n.lineno}" for m, n in elsewhere if isinstance(n, ast.Name) and n.id == "Any"), "Any")


def test_no_tree_is_removed() -> None:
    found = []
    for module in modules("tests", "demo", "bench"):
        taken = {name for name, _ in calls(module)} | {i.name for i in imports(module.tree)}
        found += [f"{module.where}: {name}" for name in taken if name.rpartition(".")[2] in REMOVERS]
    none(found, "what is mounted below goes too: one rmtree through a bind mount empties a machine")


def test_modules_open_with_their_rule() -> None:
    none((m.where for m in modules() if m.text.strip() and not ast.get_docstring(m.tree)), "no docstring")


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Yield the public classes, functions and methods in *body*, with their dotted names."""
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


def promised(module: Module, name: str, node: ast.ClassDef | Function) -> bool:
    """Return whether *node* has a docstring; a method may inherit its promise from the class it overrides."""
    if ast.get_docstring(node):
        return True
    if isinstance(node, ast.ClassDef) or "." not in name or _is_setter(node):
        return not isinstance(node, ast.ClassDef) and _is_setter(node)
    owner: object = importlib.import_module(module.name)
    for part in name.split("."):
        owner = getattr(owner, part)
    return bool(inspect.getdoc(owner))


def _is_setter(node: Function) -> bool:
    return any(ast.unparse(d).endswith(".setter") for d in node.decorator_list)


def test_what_is_public_promises_something() -> None:
    everything = [(m, n, name) for m in SOURCES for name, n in public(m.tree.body)]
    none((f"{m.where}:{n.lineno}: {name}" for m, n, name in everything if not promised(m, name, n)), "no docstring")
