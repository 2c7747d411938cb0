"""The walls between the rooms, read from the imports: what may know what, and who may speak to the kernel."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable

from tests.house.source import SRC, Import, Module, imports, modules, none

EVERYTHING = {
    "drivers", "adapters", "units", "prove", "backends", "broker", "launch", "cage", "service", "helper", "linux", "fuse", "proto",
    "errors",
}  # fmt: skip

#: Room → the rooms that it may import. errors is everybody's. Nothing may import cli, and helper and service never each
#: other: each must work against the other half of libfuse.
ARROWS: dict[str, set[str]] = {
    "": set(),
    "errors": set(),
    "proto": {"errors"},
    "fuse": {"errors"},
    "linux": {"errors"},
    "helper": {"proto", "linux", "errors"},
    "service": {"proto", "linux", "fuse", "errors"},
    "cage": {"proto", "linux", "errors"},
    "launch": {"cage", "proto", "linux", "errors"},
    "broker": {"helper", "launch", "cage", "proto", "linux", "errors"},
    "backends": {"broker", "helper", "proto", "linux", "errors"},
    "prove": {"cage", "launch", "linux", "errors"},
    "adapters": {"service", "fuse", "errors"},
    "drivers": {"service", "fuse", "errors"},
    "units": {"cage", "proto", "errors"},
    "cli": EVERYTHING,
}

#: The protocols do no I/O: all that they may import from outside of the project.
WITHOUT_IO = {"__future__", "collections", "collections.abc", "enum", "errno", "struct", "types", "typing"}
NO_IO_MODULES = {
    "fuservice.broker.wire",
    "fuservice.fuse.abi",
    "fuservice.fuse.budget",
    "fuservice.fuse.codec",
    "fuservice.fuse.nodes",
}

#: Only linux/ goes through these doors.
DOOR_MODULES = {"ctypes", "_ctypes", "socket", "_socket", "cffi"}
DOOR_CALLS = {"ioctl", "recvmsg", "sendmsg", "recvmsg_into", "recv_fds", "send_fds", "syscall"}

#: What the mount path may never import, for what it costs (docs/design.md) or for what it does.
TOO_DEAR = {
    "argparse", "asyncio", "contextlib", "dataclasses", "importlib.metadata", "inspect", "json", "logging", "pathlib",
    "random", "re", "shutil", "socket", "subprocess", "tempfile", "threading", "tokenize", "traceback", "typing",
}  # fmt: skip

SOURCES = modules("src")


def places(select: Callable[[Module, Import], bool]) -> list[str]:
    """Return every import in the source that *select* picks, as one says it in a message."""
    return [f"{m.where}:{i.line}: {i.name}" for m in SOURCES for i in imports(m.tree) if select(m, i)]


def test_each_room_imports_only_what_its_arrows_allow() -> None:
    def strange(module: Module, wanted: Import) -> bool:
        ours, _, rest = wanted.name.partition(".")
        room = rest.partition(".")[0]
        return ours == "fuservice" and room not in {"", module.room} | ARROWS[module.room]

    assert {m.room for m in SOURCES} <= set(ARROWS), f"a new room: give it its arrows in {__file__}"
    none(places(strange), "a wall: see ARROWS")


def test_the_arrows_have_no_circle() -> None:
    done: set[str] = set()
    while todo := {room for room in ARROWS if room not in done}:
        free = {room for room in todo if ARROWS[room] <= done}
        assert free, f"a circle among {sorted(todo)}"
        done |= free


def is_without_io(module: Module) -> bool:
    """Return whether *module* belongs to a protocol, which gets bytes and gives bytes and touches nothing."""
    return module.room == "proto" or module.name in NO_IO_MODULES


def test_the_protocols_do_no_io() -> None:
    assert {m.name for m in SOURCES} >= NO_IO_MODULES
    known = WITHOUT_IO | {"fuservice"}
    none(places(lambda m, i: is_without_io(m) and i.runtime and not _is_in(i, known)), "not in WITHOUT_IO")
    none(calls_of({"open", "input", "print", "__import__"}, filter(is_without_io, SOURCES)), "does I/O")


def _is_in(wanted: Import, names: Collection[str]) -> bool:
    return wanted.name in names or wanted.name.partition(".")[0] in names


def calls_of(names: set[str], among: Iterable[Module]) -> list[str]:
    """Return the places where a function or method with one of these *names* is called."""
    found = ((m, n) for m in among for n in ast.walk(m.tree) if isinstance(n, ast.Call))
    return [f"{m.where}:{n.lineno}" for m, n in found if ast.unparse(n.func).rpartition(".")[2] in names]


def test_only_linux_speaks_to_the_kernel() -> None:
    none(places(lambda m, i: m.room != "linux" and i.runtime and _is_in(i, DOOR_MODULES)), "belongs in linux/")
    none(calls_of(DOOR_CALLS, (m for m in SOURCES if m.room != "linux")), "belongs in linux/")


def test_the_core_imports_python_and_itself_only() -> None:
    known = sys.stdlib_module_names | {"fuservice"}
    none(places(lambda _, i: not _is_in(i, known)), "the core has no dependency")


def imported_by(program: str) -> set[str]:
    """Return all the modules that a bare Python has after it imported *program*."""
    code = f"import sys; sys.path.append({str(SRC)!r}); import {program}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-ISc", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_mount_path_imports_nothing_dear() -> None:
    loaded = imported_by("fuservice.cli.fuservicemount") - imported_by("sys")
    outside = sorted(name for name in loaded if not name.startswith("fuservice"))
    print(
        f"the mount path: {len(loaded) - len(outside)} modules of ours, {len(outside)} of Python's: {' '.join(outside)}"
    )
    assert not loaded & TOO_DEAR
    assert not {
        name for name in loaded if name.startswith(("fuservice.drivers", "fuservice.service", "fuservice.fuse"))
    }
