"""``fuservicemount --transient``: systemd starts the server for this helper alone, at one end of a socket pair; nobody listens.

The server gets what a template unit of `fuservice units' says, without a file: nothing needs to be installed. systemd-run(1)
passes its standard input on to the service, which is how a connection gets there in all versions that we know; a property for it
by name came with 257 (ExtraFileDescriptor=), and busctl(1) could not pass descriptors before.
"""

from __future__ import annotations

import os
import signal

from fuservice.cli import systemd
from fuservice.cli.contained import A_JOURNAL
from fuservice.cli.ownserver import own_server
from fuservice.cli.unit import profile
from fuservice.drivers import catalog
from fuservice.errors import NoHelloError, PolicyError, RemoteProtocolError, SystemCallError
from fuservice.helper.attach import attach
from fuservice.helper.mount import mount
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.units.places import ROOT
from fuservice.units.service import sections
from fuservice.units.transient import command, properties, unit_name
from fuservice.units.user import user_sections

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from fuservice.helper.request import Request
    from fuservice.helper.session import Attach
    from fuservice.linux.sockets import SeqPacket


def mount_transiently(request: Request, say: Callable[[str], None], attach: Attach = attach) -> None:
    """Mount as *request* asks, with a server in a transient unit; FuserviceError, and nothing left, where that fails.

    *attach* is the back end.
    """
    name = own_server(request, "transient")
    words = start(name)
    services: list[Service] = []

    def connect(_request: Request) -> SeqPacket:
        services.append(Service(words))
        return services[-1].connection

    try:
        mount(request, say, connect, attach)
    except RemoteProtocolError as error:
        from fuservice.cli.postmortem import explain_unit

        none = RemoteProtocolError(f"systemd has started no server of {name}")
        unit = next(word.removeprefix("--unit=") for word in words if word.startswith("--unit="))
        raise explain_unit(
            none if isinstance(error, NoHelloError) else error,
            unit,
            of_user=os.geteuid() != 0,
            starter=services[-1].pid,
        ) from None
    finally:
        for service in services:
            service.leave()


def start(name: str) -> list[str]:
    """Return the command that has systemd start a server of type *name*, connected to its standard input.

    Root's is started by the system's manager, another user's by that user's own. PolicyError where there is none.
    """
    is_root = os.geteuid() == 0
    if not (systemd.runs() if is_root else systemd.runs_for_user()):
        whose = "systemd does not run here" if is_root else "no systemd of this user's runs here"
        raise PolicyError(f"--transient: {whose} (try --direct)")
    version, program, needs = systemd.version(), systemd.program(""), profile(catalog.find(name))
    unit = (sections if is_root else user_sections)(name, needs, program)
    token = os.urandom(8).hex()
    instance = f"{token}-{os.getuid()}"  # as a socket unit has it, the caller is last
    return [
        "systemd-cat", f"--identifier=fuservice-{name}", "systemd-run", *(() if is_root else ("--user",)),
        "--quiet", "--pipe", f"--unit={unit_name(name, token)}", f"--setenv=JOURNAL_STREAM={A_JOURNAL}",
        *properties(unit, instance, version),
        "--", *command(unit, instance),
    ]  # fmt: skip


#: systemd-run's own complaints go where the service's words go, and not under its own name (systemd(1), "Environment").
COMPLAIN_HERE: Final = {"SYSTEMD_LOG_TARGET": "console"}


class Service:
    """A systemd-run(1) that is our child, and has a service started. The *connection* to that is the caller's."""

    def __init__(self, words: list[str]) -> None:
        """Start *words*, with the other end for standard input; SystemCallError where that cannot be executed."""
        if os.geteuid() == 0:
            _make_root()
        self.connection, theirs = FdSeqPacket.pair()
        with theirs:
            try:
                self.pid = os.posix_spawnp(
                    words[0], words, {**os.environ, **COMPLAIN_HERE}, setpgroup=0,  # what interrupts us is not for it
                    file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
                )  # fmt: skip
            except OSError as error:
                self.connection.close()
                raise SystemCallError(f"--transient: {words[0]}: {error.strerror}") from None

    def leave(self) -> None:
        """Let the service live, or end by itself, without us. systemd-run would wait for that, to tell its exit code."""
        os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        os.waitpid(self.pid, 0)


def _make_root() -> None:
    """Make the directory that is the servers' root, for all to search, whatever our umask.

    Where the units are installed, systemd mounts an empty filesystem there first.
    """
    for place in (os.path.dirname(ROOT), ROOT):  # noqa: PTH120
        try:
            os.mkdir(place)  # noqa: PTH102
            os.chmod(place, 0o755)  # noqa: PTH101
        except FileExistsError:
            continue
        except OSError as error:
            raise SystemCallError(f"--transient: {place}: {error.strerror}") from None
