"""fuservice-TYPE@.service for a user's own manager: one server, and the process that looks after it.

A manager without rights gives no server a user of its own, leaves out most walls without a word, and can build the rest only in
a user namespace. So the server builds its whole cage itself, as for every plain user (``fuservice serve``), or does not start.
What is said here is about whoever looks after it, in a namespace around the cage.

There is no filter of system calls here: its answer would come before that of the cage's own filter, and nobody would hear of a
server that tries what is forbidden.
"""

from __future__ import annotations

from fuservice.units import service
from fuservice.units.text import Directive, unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Final

    from fuservice.cage.profile import Profile
    from fuservice.units.places import Program

#: Wall → what builds it, around the one of the same name that the server builds.
WALLS: Final[Mapping[str, Sequence[Directive]]] = {
    "user": (
        Directive("Of all other users there is none, not even by number; without it, none of what follows.", "PrivateUsers", "yes"),
        Directive("No keys of others, and no others' of ours.", "KeyringMode", "private"),
    ),
    "root": (
        Directive("A root of its own, in memory …", "TemporaryFileSystem", "/:ro"),
        Directive("… into which come Python and this program; no home, no other file of the user's …",
                  "BindReadOnlyPaths", "{readable} /dev/null"),
        Directive("… and processes: a cage is built with the help of their files.", "BindPaths", "/proc"),
        Directive("Here is told what `fuservice list` shows …", "RuntimeDirectory", "fuservice-servers"),
        Directive("… to the user alone …", "RuntimeDirectoryMode", "0700"),
        Directive("… and of other servers too, so it stays.", "RuntimeDirectoryPreserve", "yes"),
    ),
    "net": (Directive("No network but a loopback interface that is down.", "PrivateNetwork", "yes"),),
    "ipc": (Directive("No System V IPC and message queues of others.", "PrivateIPC", "yes"),),
    "capabilities": (
        Directive("Nothing of what root may, not even in there …", "CapabilityBoundingSet", ""),
        Directive("… and nothing kept over execve(2).", "AmbientCapabilities", ""),
    ),
    "privileges": (Directive("No program gains rights.", "NoNewPrivileges", "yes"),),
    "seccomp": (Directive("Only this machine's own system calls: whoever makes another is killed.", "SystemCallArchitectures", "native"),),
}  # fmt: skip


#: What is started for each server that failed.
TIDY: Final = "fuservice-tidy@.service"


def tidy_service(program: Program, version: int) -> str:
    """Return that template unit. It has the user's rights and sees the user's mounts, and is given nothing of the server's."""
    return unit(
        {
            "Unit": [
                Directive("What `systemctl --user status` shows.", "Description", "Detach what a dead server was mounted as"),
                Directive("One that failed is forgotten: the journal has it.", "CollectMode", "inactive-or-failed"),
            ],
            "Service": [
                Directive("It ends when it has done that.", "Type", "oneshot"),
                Directive("Python finds the program itself: no script in between.", "ExecStart", program.tidied()),
                Directive("In the journal it is found by name.", "SyslogIdentifier", "fuservice-tidy"),
                *_group(),
            ],
        },
        f"{TIDY}: made by `fuservice units --user'.", version,
    )  # fmt: skip


def user_service(name: str, profile: Profile, program: Program, version: int) -> str:
    """Return the template unit that serves type *name* in a user's own manager, of systemd *version*."""
    return unit(
        user_sections(name, profile, program), f"fuservice-{name}@.service: made by `fuservice units --user'.", version
    )


def user_sections(name: str, profile: Profile, program: Program) -> dict[str, list[Directive]]:
    """Return the sections of that unit."""
    return {
        "Unit": [*_unit(name)],
        "Service": [
            *service.start(program.supervised(name)), *service.budgets(profile), *service.log(name),
            *_group(), *service.walls(program, WALLS),
        ],
    }  # fmt: skip


def _unit(name: str) -> Iterator[Directive]:
    yield Directive("What `systemctl --user status` shows.", "Description", f"Filesystem server of type {name}")
    yield Directive("A server that failed is forgotten: the journal has it.", "CollectMode", "inactive-or-failed")
    yield Directive(
        "What a dead one was mounted as is detached by somebody who sees it.", "OnFailure", TIDY.replace("@", "@%i")
    )


def _group() -> Iterator[Directive]:
    yield Directive(
        "The slice that a template has by itself would stay when all its services are gone.", "Slice", "app.slice"
    )
