"""The project's own files, parsed once, for the tests that keep the house."""

from __future__ import annotations

import ast
import functools
import io
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeGuard

from tests.support.capabilities import REPOSITORY

SRC = REPOSITORY / "src"
FOLDERS = ("src", "tests", "demo", "bench")

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """One Python file."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    @property
    def where(self) -> str:
        """The path as one says it in a message."""
        return str(self.path.relative_to(REPOSITORY))

    @property
    def room(self) -> str:
        """The room in src/fuservice that the file is in: "proto", or "errors" for errors.py, or "" for the door."""
        return self.name.partition(".")[2].partition(".")[0]


class Import(NamedTuple):
    """One imported module; ``from a import b`` counts as ``a.b`` too where that may be a module of ours."""

    name: str
    line: int
    runtime: bool


@functools.cache
def modules(*folders: str) -> list[Module]:
    """Return the project's Python files in *folders* (all of ours if none is named)."""
    found = []
    for folder in folders or FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            text = path.read_text()
            base = SRC if folder == "src" else REPOSITORY
            name = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
            found.append(Module(path, name, text, ast.parse(text)))
    return found


def none(found: Iterable[str], rule: str) -> None:
    """Fail with the *rule* and one line for each place *found* that breaks it."""
    if lines := list(found):
        raise AssertionError("\n  ".join([rule, *lines]))


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, f"relative import in line {node.lineno}"
    module = node.module or ""
    inner = [f"{module}.{alias.name}" for alias in node.names] if module.split(".")[0] == "fuservice" else []
    return [module, *(name for name in inner if is_module(name))]


def is_module(name: str) -> bool:
    """Return whether *name* is a module or package of ours."""
    path = SRC / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(tree: ast.AST, *, runtime: bool = True) -> Iterator[Import]:
    """Yield what *tree* imports, at its top or in a function; ``runtime`` is False below ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (Import(name, node.lineno, runtime) for name in _names(node))
        else:
            yield from imports(node, runtime=runtime and not _is_type_checking(node))


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield every function and method in *tree*, inner ones too."""
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    """Return the lines of *function* from its ``def`` on, without its docstring."""
    first = function.body[0]
    doc = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) is not None and first.end_lineno else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - doc


NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def lines_of_code(module: Module) -> int:
    """Return how many lines of *module* hold code that can run.

    Blank lines, comments and docstrings hold none, nor does what only a type checker reads.
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(module.tree):
        if _is_for_readers(node):
            lines -= {*range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    return len(lines)


def _is_for_readers(node: ast.AST) -> TypeGuard[ast.stmt]:
    """Return whether *node* is a docstring, or there for type checkers alone."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.If):
        return _is_type_checking(node) and not node.orelse
    if isinstance(node, ast.ImportFrom):
        return node.module == "__future__"
    return isinstance(node, ast.Assign) and ast.unparse(node) == "TYPE_CHECKING = False"


@functools.cache
def tracked() -> list[Path]:
    """Return every file that is, or is about to be, in the repository."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [path for name in done.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]
