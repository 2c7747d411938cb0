"""One call that does it all for a driver: from the socket we were started with to the unmount."""

from __future__ import annotations

import os
import sys
from functools import partial

from fuservice import __version__
from fuservice.errors import EXIT_FAILURE, EXIT_OK, FuserviceError, ImageError, UsageError
from fuservice.fuse.codec import Policy
from fuservice.fuse.session import Session
from fuservice.fuse.watch import Watch
from fuservice.linux import fusedev, prctl, threads
from fuservice.linux.fds import Fd
from fuservice.linux.fdsockets import FdSeqPacket
from fuservice.proto import argv as argv_file
from fuservice.proto import layouts
from fuservice.service.commandline import parse_cmdline_opts
from fuservice.service.handover import FIRST_FD, leave_supervisor, show_image
from fuservice.service.log import log, status
from fuservice.service.service import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuservice.fuse.budget import Budgets
    from fuservice.fuse.filesystem import Filesystem
    from fuservice.service.commandline import CommandLine
    from fuservice.service.driver import Driver


def service_main(driver: type[Driver], argv: Sequence[str] | None = None) -> int:
    """Serve one mount with *driver*; return the exit code once it is unmounted. *argv* is our own command line.

    Blocks for as long as the mount lives. What goes wrong is one line on standard error, the log.
    """
    own = list(sys.argv if argv is None else argv) or [driver.name]
    try:
        service = Service.accept()
        if service is None:
            raise UsageError(
                "this is a fuse service: it is started by a socket unit or by `fuservice listen`, "
                f"and asked for with `fuservicemount SOURCE MOUNTPOINT -t {driver.name}`"
            )
    except FuserviceError as error:
        log(f"fuse: {error}")
        return EXIT_FAILURE
    prctl.set_name(driver.name)  # what ps(1) and `fuservice list` call us
    with service:
        try:
            return _serve(service, driver, own)
        except FuserviceError as error:  # of the session: the kernel and we have no protocol in common
            log(f"fuse: {error}")
            return EXIT_FAILURE


def _serve(service: Service, driver: type[Driver], own: Sequence[str]) -> int:
    try:
        args = service.append_args(own)
        line = service.parse_cmdline_opts(args, driver.options)
        if line.show_help or line.show_version:
            log(_version(driver) if line.show_version else _usage(driver))
            service.send_goodbye(EXIT_OK)
            return EXIT_OK
        source, mount_point = _positional(line, driver)
        if driver.image is not None and driver.image.is_source:
            line.fsname = line.fsname or _plain(source)
        image = None if source is None else _image(service, driver, source)
        if image is not None:
            show_image(image.fileno())
    except (FuserviceError, OSError) as error:
        return _give_up(service, error)
    try:
        return _mount_and_run(service, driver, image, line, mount_point)
    finally:
        if image is not None:
            image.close()


def _mount_and_run(
    service: Service, driver: type[Driver], image: Fd | None, line: CommandLine, mount_point: str
) -> int:
    try:
        service.finish_file_requests()
        line.check_known()
        filesystem, budgets = _load(driver, image, line)
        if driver.read_only:
            line.flags |= layouts.MS_RDONLY
        service.expect_mount_format(driver.mount_point_kind)
        owner, device = service.caller(), service.take_fusedev()
    except (FuserviceError, OSError) as error:
        return _give_up(service, error)
    if line.auto_unmount:
        log("auto_unmount has no effect: the mount of a server that died is detached anyway, or by `fuservice umount'")
    with device:
        session = _session(device, filesystem, budgets, line, owner)
        try:
            service.session_mount(line, mount_point)
        except (FuserviceError, OSError) as error:
            # A helper that was killed after it had mounted could not say so: the mount stands, and needs us.
            if not fusedev.is_mounted(device.fileno()):
                return _give_up(service, error)
        service.send_goodbye(EXIT_OK)
        service.release()
        try:
            _run(session, budgets, mount_point)
        except PermissionError:  # the device has no mount: the helper said yes, and did not do it
            log("fuse: the helper said that it had mounted, and it had not")
            return EXIT_FAILURE
    return EXIT_OK


def _tell(budgets: Budgets) -> None:
    status(**budgets.facts())


def _load(driver: type[Driver], image: Fd | None, line: CommandLine) -> tuple[Filesystem, Budgets]:
    """Return what will be served, and what it may spend. ImageError, or OSError, where that cannot be."""
    starting = driver(log)
    budgets = starting.budgets
    with Watch(budgets, budgets.start, callers=frozenset((__name__,))):
        return starting.load(image, line.own), budgets


def _session(device: Fd, filesystem: Filesystem, budgets: Budgets, line: CommandLine, owner: int) -> Session:
    policy = Policy(allow_suid=line.suid, allow_dev=line.dev, only={0, owner} if line.allow_root else None)
    return Session(
        device.fileno(), filesystem, log=log, policy=policy, budgets=budgets, debug=line.debug, spare=threads.take()
    )


def _run(session: Session, budgets: Budgets, mount_point: str) -> None:
    """Serve until it is unmounted, and tell whoever looks after us how we do."""
    status(mountpoint=mount_point)
    _tell(budgets)
    with Watch(budgets, budgets.time, tell=partial(_tell, budgets), interrupt=threads.interrupt):
        session.run()


def succeed(driver: type[Driver], own: str) -> int:
    """Serve a mount of *driver*'s in the place of a server that has died; return the exit code once it is unmounted.

    Whoever looks after us sends, instead of a conversation, one packet: the owner's uid, the argv file, fuse device and image.
    """
    leave_supervisor()
    try:
        with FdSeqPacket(Fd(FIRST_FD)) as socket:
            packet, (device, image) = socket.receive_with_fds(layouts.LARGEST_PACKET)
        with device, image:
            owner, _, file = packet.partition(b"\0")
            words = [os.fsdecode(word) for word in argv_file.decode(file)]
            line = parse_cmdline_opts([own, *words[1:]], driver.options)
            filesystem, budgets = _load(driver, image, line)
            session = _session(device, filesystem, budgets, line, int(owner))
            session.take_over()
            _run(session, budgets, line.positional[-1])
    except (FuserviceError, OSError) as error:
        log(f"fuse: a successor cannot serve: {error}")
        return EXIT_FAILURE
    return EXIT_OK


def _positional(line: CommandLine, driver: type[Driver]) -> tuple[str | None, str]:
    """Return source (None where the driver has none) and mount point; UsageError in libfuse's words."""
    expected = 1 if driver.image is None else 2
    if len(line.positional) > expected:
        raise UsageError(f"invalid argument `{line.positional[expected]}'")
    if len(line.positional) < expected:
        raise UsageError("no mountpoint specified" if line.positional else "no source specified")
    return (line.positional[0] if expected > 1 else None), line.positional[-1]


def _plain(source: str | None) -> str | None:
    """Return *source* if mountinfo can show it as it is: helpers refuse what could forge a line."""
    return source if source is not None and source.isprintable() and "\\" not in source else None


def _image(service: Service, driver: type[Driver], source: str) -> Fd:
    assert driver.image is not None
    flags = os.O_RDWR if driver.image.writable else os.O_RDONLY
    if driver.image.block_device_only:
        service.request_blockdev(source, flags)
    else:
        service.request_file(source, flags)
    return service.receive_file(source)


def _give_up(service: Service, error: FuserviceError | OSError) -> int:
    """Log *error*, in libfuse's words where it has some, and leave the helper."""
    if isinstance(error, OSError) and error.filename:
        log(f"{os.fsdecode(error.filename)}: opening file: {error.strerror}.")
    elif isinstance(error, ImageError):
        log(str(error))
    else:
        log(f"fuse: {(isinstance(error, OSError) and error.strerror) or error}")
    service.send_goodbye(EXIT_FAILURE)
    return EXIT_FAILURE


def _version(driver: type[Driver]) -> str:
    return f"{driver.name}: fuservice {__version__}"


def _usage(driver: type[Driver]) -> str:
    words = ", ".join(driver.options) or "none"
    source = "" if driver.image is None else "SOURCE "
    return f"{driver.name}: usage: {source}MOUNTPOINT [-o OPTIONS]; options of its own: {words}"
