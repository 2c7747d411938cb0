"""fuserviced.socket and fuserviced.service: the broker, which mounts for users (``broker/``).

No directive may be among them for which systemd makes a mount namespace: what the broker mounts there, nobody else would see.
So there is no ProtectSystem=, PrivateTmp=, ProtectProc=, and there are no protected kernel tunables, logs, modules and control
groups. The broker builds the rest within (``broker/walls.py``).
"""

from __future__ import annotations

from fuservice.units.text import Directive, unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from fuservice.units.places import Program

SOCKET: Final = "fuserviced.socket"
SERVICE: Final = "fuserviced.service"

_HARDENING: Final = (
    Directive("Of root's rights the one to mount, and those that it takes to give up all the others: to change user once, and to "
              "lock what capabilities mean.",
              "CapabilityBoundingSet", "CAP_SYS_ADMIN CAP_SETUID CAP_SETGID CAP_SETPCAP"),
    Directive("No program gains rights.", "NoNewPrivileges", "yes"),
    Directive("No file with a set-user-ID or set-group-ID bit can be made.", "RestrictSUIDSGID", "yes"),
    Directive("Callers connect by a path: there are no other sockets.", "RestrictAddressFamilies", "AF_UNIX"),
    Directive("And no packet would leave …", "IPAddressDeny", "any"),
    Directive("… from no network but a loopback interface that is down.", "PrivateNetwork", "yes"),
    Directive("That brings no mount namespace, as it would from version 254 on: what is mounted must be seen.",
              "PrivateMounts", "no"),
    Directive("No device can be opened but the harmless ones: the callers open the fuse device.", "DevicePolicy", "closed"),
    Directive("It mounts where it is, and nowhere else: no namespaces, neither new ones nor others'.", "RestrictNamespaces", "yes"),
    Directive("Only this machine's own system calls.", "SystemCallArchitectures", "native"),
    Directive("No call that a broker has nothing to do with. Within, it goes on to allow a few dozen, in few forms. (A list of the "
              "allowed would have to name statmount, which systemd 252 does not know.)",
              "SystemCallFilter", "~@aio @chown @clock @cpu-emulation @debug @keyring @module @obsolete @raw-io @reboot @swap "
              "acct bpf chroot fanotify_init fspick kill mount mount_setattr open_by_handle_at open_tree perf_event_open pivot_root "
              "ptrace quotactl setdomainname sethostname tkill userfaultfd vhangup"),
    Directive("Python gets an error for what is refused while it starts.", "SystemCallErrorNumber", "EPERM"),
    Directive("No other kinds of execution domains.", "LockPersonality", "yes"),
    Directive("No memory that is written and executed.", "MemoryDenyWriteExecute", "yes"),
    Directive("It cannot keep others from running.", "RestrictRealtime", "yes"),
    Directive("The clock cannot be set.", "ProtectClock", "yes"),
    Directive("No keys of others, and no others' of ours.", "KeyringMode", "private"),
    Directive("What it could create would be its own alone.", "UMask", "0077"),
)  # fmt: skip


def socket(place: str, version: int) -> str:
    """Return the socket unit, which listens at the path *place*, for systemd *version*."""
    sections = {
        "Unit": (Directive("What `systemctl status` shows.", "Description", "Mounts for users"),),
        "Socket": (
            Directive("Callers look here.", "ListenSequentialPacket", place),
            Directive("Everybody may ask; /etc/fuservice/broker.conf says who gets.", "SocketMode", "0666"),
            Directive("The directory is root's: nobody puts a socket of theirs into it.", "DirectoryMode", "0755"),
            Directive("Whoever connects after a stop hears that nobody listens.", "RemoveOnStop", "yes"),
            Directive("A socket that was asked too often must not fail for good.", "TriggerLimitIntervalSec", 0),
        ),
        "Install": (Directive("Enabled, it listens from boot on.", "WantedBy", "sockets.target"),),
    }
    return unit(sections, f"{SOCKET}: made by `fuservice units'.", version)


def service(program: Program, version: int) -> str:
    """Return the service unit, for systemd *version*."""
    sections = {
        "Unit": (
            Directive("What `systemctl status` shows.", "Description", "Mounts for users"),
            Directive("It ends when its policy has changed, and starts for the next caller: so often, at most, in ten seconds.",
                      "StartLimitBurst", 50),
        ),
        "Service": [*_start(program), *_budgets(), *_HARDENING],
    }  # fmt: skip
    return unit(sections, f"{SERVICE}: made by `fuservice units'.", version)


def _start(program: Program) -> Iterator[Directive]:
    yield Directive("Errors of the start are seen as such.", "Type", "exec")
    yield Directive(
        "Started as root, it becomes a user that nobody else is: systemd 252 takes no number for User= that no account "
        "has, and a dynamic user would be in a mount namespace.",
        "ExecStart", f"{program.python} -I -m fuservice.cli.broker",
    )  # fmt: skip
    yield Directive("Told to end, it takes no further callers …", "KillMode", "mixed")
    yield Directive("… and has so long for those that it serves.", "TimeoutStopSec", "20s")
    yield Directive("Its log has the name of the program.", "SyslogIdentifier", "fuserviced")


def _budgets() -> Iterator[Directive]:
    yield Directive("Bytes of memory, for it and for a process for each caller.", "MemoryMax", 512 << 20)
    yield Directive("Callers are served by a process each, and not more at once.", "TasksMax", 80)
    yield Directive("Descriptors: a connection is one.", "LimitNOFILE", 1024)
    for limit, why in (
        ("CORE", "No core file."),
        ("MEMLOCK", "It locks no memory."),
        ("MSGQUEUE", "It has no message queues."),
    ):
        yield Directive(why, f"Limit{limit}", 0)
    yield Directive("Where many want the processor, it has half of the usual share.", "CPUWeight", 50)
