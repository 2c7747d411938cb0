"""fuservice-TYPE@.service: one server, for one connection. Each wall is named where the cage names it (``cage.plan.WALLS``)."""

from __future__ import annotations

from fuservice.units.places import ROOT
from fuservice.units.text import Directive, unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Final

    from fuservice.cage.profile import Profile
    from fuservice.units.places import Program

PROCESSES: Final = 2  # of each instance
SUPERVISOR: Final = 64 << 20  # bytes of memory

#: Wall → what builds it. Those that are missing the server builds itself, within (``inside.py``).
WALLS: Final[Mapping[str, Sequence[Directive]]] = {
    "user": (
        Directive("A user that exists for as long as the service.", "DynamicUser", "yes"),
        Directive("One for each instance: two mounts could signal each other if they shared it.", "User", "fsd-%i"),
        Directive("Of all other users there is none, not even by number.", "PrivateUsers", "yes"),
        Directive("No keys of others, and no others' of ours.", "KeyringMode", "private"),
        Directive("What it leaves in System V IPC goes with it.", "RemoveIPC", "yes"),
    ),
    "root": (
        Directive("A root of its own: an empty directory, in memory …", "RootDirectory", ROOT),
        Directive("… but not for what follows it …", "RootDirectoryStartOnly", "yes"),
        Directive("… into which come Python and this program, until they are loaded; then nothing can be opened any more.",
                  "BindReadOnlyPaths", "{readable}"),
        Directive("All that is read-only.", "ProtectSystem", "strict"),
        Directive("There are no homes in it, but what of this program lies in one.", "ProtectHome", "{homes}"),
        Directive("Those can be searched: systemd 257 makes /root root's alone, and 252 everybody's.", "TemporaryFileSystem", "{opened}"),
        Directive("Nothing may be executed …", "NoExecPaths", "/"),
        Directive("… but Python and its libraries.", "ExecPaths", "{executable}"),
        Directive("Of devices there are the harmless ones: the fuse device comes through the socket.",
                  "PrivateDevices", "yes"),
        Directive("And no other could be opened.", "DevicePolicy", "closed"),
    ),
    "mount": (Directive("Mounts of the service are nobody else's.", "PrivateMounts", "yes"),),
    "net": (
        Directive("No network but a loopback interface that is down.", "PrivateNetwork", "yes"),
        Directive("No socket can be made, of any kind.", "RestrictAddressFamilies", "none"),
        Directive("And no packet would leave.", "IPAddressDeny", "any"),
    ),
    "ipc": (Directive("No System V IPC and message queues of others.", "PrivateIPC", "yes"),),
    "uts": (Directive("The machine's name cannot be changed.", "ProtectHostname", "yes"),),
    "pid": (
        Directive("A list of processes of its own.", "PrivatePIDs", "yes", since=257),
        Directive("Processes of others do not show in /proc …", "ProtectProc", "invisible"),
        Directive("… nor anything that is about the machine.", "ProcSubset", "pid"),
    ),
    "cgroup": (Directive("Control groups cannot be changed.", "ProtectControlGroups", "yes"),),
    "capabilities": (
        Directive("Nothing of what root may …", "CapabilityBoundingSet", ""),
        Directive("… and nothing kept over execve(2).", "AmbientCapabilities", ""),
    ),
    "privileges": (
        Directive("No program gains rights.", "NoNewPrivileges", "yes"),
        Directive("No file with a set-user-ID or set-group-ID bit can be made.", "RestrictSUIDSGID", "yes"),
    ),
    "seccomp": (
        Directive("Only this machine's own system calls.", "SystemCallArchitectures", "native"),
        Directive("What a service usually takes, and what builds the walls within …", "SystemCallFilter",
                  "@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp"),
        Directive("… but no privileged call, no io_uring, no keys, no processes of others. The server itself goes on to "
                  "allow a few dozen.",
                  "SystemCallFilter", "~@privileged @resources @mount @aio @keyring @setuid @ipc"),
        Directive("Python gets an error for what is refused while it starts.", "SystemCallErrorNumber", "EPERM"),
        Directive("No namespaces: they are a way to rights over parts of the kernel.", "RestrictNamespaces", "yes"),
        Directive("No other kinds of execution domains.", "LockPersonality", "yes"),
        Directive("No memory that is written and executed.", "MemoryDenyWriteExecute", "yes"),
        Directive("It cannot keep others from running.", "RestrictRealtime", "yes"),
        Directive("The kernel's variables are read-only.", "ProtectKernelTunables", "yes"),
        Directive("No kernel modules.", "ProtectKernelModules", "yes"),
        Directive("No kernel log.", "ProtectKernelLogs", "yes"),
        Directive("The clock cannot be set.", "ProtectClock", "yes"),
    ),
}  # fmt: skip


def service(name: str, profile: Profile, program: Program, version: int) -> str:
    """Return the template unit that serves type *name*, contained as *profile* says, for systemd *version*."""
    return unit(sections(name, profile, program), f"fuservice-{name}@.service: made by `fuservice units'.", version)


def sections(name: str, profile: Profile, program: Program) -> dict[str, list[Directive]]:
    """Return the sections of that unit."""
    return {
        "Unit": [*_unit(name)],
        "Service": [
            *start(program.command(name)), *_of_the_system(name, program, profile), *budgets(profile), *log(name),
            *walls(program, WALLS), *_calls(profile),
        ],
    }  # fmt: skip


def walls(program: Program, of: Mapping[str, Sequence[Directive]]) -> Iterator[Directive]:
    """Yield the directives of all walls *of* a unit, for *program*."""
    words = program.words()
    for one in (one for directives in of.values() for one in directives):
        value = one.value.format_map(words)
        if value or not one.value:
            yield Directive(one.why, one.name, value, one.since)


def _calls(profile: Profile) -> Iterator[Directive]:
    yield Directive("What it takes for the filter within, and for the server's log.",
                    "SystemCallFilter", " ".join(sorted({*profile.rules(), "pipe2"})))  # fmt: skip


def _unit(name: str) -> Iterator[Directive]:
    yield Directive("What `systemctl status` shows.", "Description", f"Filesystem server of type {name}")
    yield Directive("A server that failed is forgotten: the journal has it.", "CollectMode", "inactive-or-failed")
    yield Directive("It begins before sysinit.target, for fstab, and ends when its mount does: at shutdown nothing stops it.",
                    "DefaultDependencies", "no")  # fmt: skip


def start(command: str) -> Iterator[Directive]:
    """Yield how *command* is started, and ends."""
    yield Directive("Errors of the start are seen as such.", "Type", "exec")
    yield Directive("The process has one child, the server, and looks after it.", "ExecStart", command)
    yield Directive("A mount that does not end when asked is ended.", "TimeoutStopSec", "5s")
    yield Directive("A server that was killed must not come back: its mount is gone.", "Restart", "no")


def budgets(profile: Profile) -> Iterator[Directive]:
    """Yield what the server may spend, and whoever looks after it."""
    yield Directive("Bytes of address space.", "LimitAS", profile.memory)
    yield Directive("Descriptors.", "LimitNOFILE", profile.descriptors)
    if profile.cpu_seconds is not None:
        yield Directive("Seconds of processor time.", "LimitCPU", profile.cpu_seconds)
    yield Directive("Bytes of memory of both, page tables and sockets' buffers among them.",
                    "MemoryMax", profile.memory + SUPERVISOR)  # fmt: skip
    yield Directive("The server, with its threads, and who looks after it.", "TasksMax", PROCESSES + profile.threads)
    for limit in ("CORE", "MEMLOCK", "MSGQUEUE", "SIGPENDING"):
        yield Directive(_NOTHING[limit], f"Limit{limit}", 0)
    yield Directive("Where memory runs out, it is the first to go …", "OOMScoreAdjust", 500)
    yield Directive("… and goes whole.", "OOMPolicy", "kill")
    yield Directive("What it could create would be its own alone.", "UMask", "0077")


def _of_the_system(name: str, program: Program, profile: Profile) -> Iterator[Directive]:
    yield Directive("When it is dead, somebody with rights detaches what it was mounted as, if its mount has not ended it.",
                    "ExecStopPost", program.stopped(name))  # fmt: skip
    yield Directive("They are all that their user runs. The server takes away its own right to more.",
                    "LimitNPROC", PROCESSES + profile.threads)  # fmt: skip
    yield Directive("They write no file.", "LimitFSIZE", 0)
    yield Directive("The slice that a template has by itself is stopped at shutdown, with all that is in it; this one is not.",
                    "Slice", "system.slice")  # fmt: skip


_NOTHING: Final = {
    "CORE": "No core file: it would hold what is in the image.",
    "MEMLOCK": "It locks no memory.",
    "MSGQUEUE": "It queues no messages.",
    "SIGPENDING": "It queues no signals.",
}


def log(name: str) -> Iterator[Directive]:
    """Yield where the words of a server of type *name* go."""
    yield Directive("What it prints goes to the journal …", "StandardOutput", "journal")
    yield Directive("… its complaints too, never to the kernel's log.", "StandardError", "journal")
    yield Directive("There it is found by name.", "SyslogIdentifier", f"fuservice-{name}")
    yield Directive("Who looks after it says how urgent that is; its own words cannot.", "SyslogLevelPrefix", "yes")
    yield Directive("Whoever floods the journal …", "LogRateLimitIntervalSec", "10s")
    yield Directive("… is cut short.", "LogRateLimitBurst", 100)
