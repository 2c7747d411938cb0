"""How far inputs reach: the steps from line to line that they take in a target's modules; needs no atheris."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING

from tests.fuzz import targets

if TYPE_CHECKING:
    from collections.abc import Callable

    Tracer = Callable[[FrameType, str, object], "Tracer | None"]

#: A step: the file, the function's first line, the line before (0: it was entered), the line.
Step = tuple[str, int, int, int]


def modules(target: str) -> list[ModuleType]:
    """Return the modules in which the coverage of *target* is counted."""
    return [importlib.import_module(f"fuservice.{name}") for name in targets.TARGETS[target][1]]


def reached(target: str, data: bytes) -> set[Step]:
    """Return the steps that *target* takes with *data*."""
    files = {module.__file__ for module in modules(target)}
    steps: set[Step] = set()
    before: dict[FrameType, int] = {}

    def trace(frame: FrameType, event: str, _: object) -> Tracer | None:
        code = frame.f_code
        if code.co_filename not in files:
            return None
        if event in ("call", "line"):
            steps.add((code.co_filename, code.co_firstlineno, before.get(frame, 0), frame.f_lineno))
            before[frame] = frame.f_lineno
        elif event == "return":
            before.pop(frame, None)
        return trace

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        targets.run(target, data)
    finally:
        sys.settrace(earlier)
    return steps


def minimised(target: str, inputs: Iterable[bytes]) -> list[bytes]:
    """Return the few of *inputs*, short ones first, that reach as far as all of them."""
    kept, steps = [], set[Step]()
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        new = reached(target, data)
        if new - steps:
            kept.append(data)
            steps |= new
    return kept


def lines(target: str, inputs: Iterable[bytes]) -> tuple[int, int]:
    """Return how many lines inside functions of the target's modules *inputs* run, and how many there are."""
    there = {line for module in modules(target) for line in _lines_of(module)}
    run = {(file, line) for data in inputs for file, _, _, line in reached(target, data)}
    return len(run & there), len(there)


def _lines_of(module: ModuleType) -> Iterator[tuple[str, int]]:
    assert module.__file__ is not None
    with open(module.__file__, "rb") as source:  # noqa: PTH123
        top = compile(source.read(), module.__file__, "exec")
    for code in _functions(top):
        for _, _, line in code.co_lines():
            if line:
                yield module.__file__, line


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of the functions in *code*: with fast locals, unlike a module's or a class's body."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & 0x2:  # CO_NEWLOCALS
                yield constant
            yield from _functions(constant)
